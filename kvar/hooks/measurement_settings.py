"""The checked settings of a measurement, for ``kvar.measure`` and ``GradientProbe``."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from kvar.estimators import Estimator, NextTokenReward, Score
from kvar.estimators.rewards.score_function import check_score_function
from kvar.gradients.measure import ENGINES
from kvar.returns.values import CENTRES, VALUES
from kvar.rollouts import Rollouts

__all__ = ["Groups", "MeasurementSettings", "ScoreFunction"]

Groups = Mapping[str, Any] | Literal["layers"] | None
ScoreFunction = Callable[[Rollouts], Any]


@dataclass(frozen=True, eq=False)
class MeasurementSettings:
    """The settings of a measurement.

    Attributes:
        estimators: E estimators.
        score: rollouts -> N scores of whole responses, for estimators of the reward ``score``.
        rollouts_per_prompt: R.
        max_new_tokens: T, the length limit of responses.
        seed: of the sampling.
        micro_batch: trajectories that the teacher and the gradient take at a time; None for all.
        groups: parameter groups, "layers" for one a layer.
        position_bins: also measure every estimator split over this many ranges of positions.
        engine: see ``kvar.gradients.gradient_moments``.
        fields: see ``kvar.gradients.gradient_moments``.
        centre: of the teacher's logits, see ``kvar.returns.token_values``.
        value: hard or soft V, see ``kvar.returns.token_values``.
        vocabulary: draw, score and normalise over the first this many tokens at most.
        constant_scores: accept equal scores of all responses, which a training may have at some steps.

    Raises:
        ValueError: no estimators, two of one name, a number out of range, or an unknown choice.
    """

    estimators: tuple[Estimator, ...]
    score: ScoreFunction | None = None
    rollouts_per_prompt: int = 4
    max_new_tokens: int = 64
    seed: int = 0
    micro_batch: int | None = None
    groups: Groups = None
    position_bins: int = 0
    engine: str = "auto"
    fields: Literal["all", "norms"] = "all"
    centre: Literal["mean", "logsumexp", "none"] = "mean"
    value: Literal["max", "soft"] = "max"
    vocabulary: int | None = None
    constant_scores: bool = False

    def __post_init__(self) -> None:
        names = [e.name for e in self.estimators]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"kernels must be one or more, each once; got {', '.join(names) or 'none'}.")
        for field, least in _LEAST.items():
            object.__setattr__(self, field, _whole(field, getattr(self, field), least))
        for field in ("micro_batch", "vocabulary"):
            if getattr(self, field) is not None:
                object.__setattr__(self, field, _whole(field, getattr(self, field), 1))
        for field, allowed in _CHOICES.items():
            if getattr(self, field) not in allowed:
                raise ValueError(f"{field} must be one of {', '.join(allowed)}; got {getattr(self, field)!r}.")
        if isinstance(self.groups, str) and self.groups != "layers":
            raise ValueError(f"groups must be a mapping, 'layers' or None; got {self.groups!r}.")
        check_score_function(self.score, "rollouts")
        for e in self.estimators:
            if self.rollouts_per_prompt == 1 and getattr(e.subtracted, "scope", None) == "prompt":
                raise ValueError(
                    f"baseline {e.baseline if isinstance(e.baseline, str) else e.name} needs rollouts_per_prompt of at "
                    f"least 2; got 1 (estimator {e.name!r})."
                )
            if isinstance(e.reward, Score) and e.reward.function is None and self.score is None:
                raise ValueError(
                    f"estimator {e.name!r} needs score=, a function: rollouts -> one number a response, for instance "
                    "the metric of its text."
                )

    def check_teacher(self, teacher: object, reward: Callable[[Rollouts], Tensor] | None) -> None:
        """Require exactly one of teacher and reward, and the teacher where an estimator needs it.

        Raises:
            ValueError: neither or both of teacher and reward; an estimator needs a teacher and there is none.
        """
        if (teacher is None) == (reward is None):
            raise ValueError("GradientProbe needs exactly one of teacher= and reward=.")
        for e in self.estimators:
            if teacher is None and e.baseline == "teacher-value":
                raise ValueError("baseline teacher-value needs teacher=; a reward has no V. Use another baseline.")
            if teacher is None and isinstance(e.reward, NextTokenReward):
                raise ValueError(
                    f"estimator {e.name!r} needs teacher=, whose next-token probabilities make {e.reward.name!r}; "
                    "reward= is for names without a reward, such as K=4."
                )


_LEAST = {"rollouts_per_prompt": 1, "max_new_tokens": 1, "seed": None, "position_bins": 0}
_CHOICES = {"engine": tuple(ENGINES), "fields": ("all", "norms"), "centre": CENTRES, "value": VALUES}


def _whole(field: str, value: Any, least: int | None) -> int:
    """A whole number of at least ``least``."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or (least is not None and number < least):
        bound = "" if least is None else f" of at least {least}"
        raise ValueError(f"{field} must be a whole number{bound}; got {value!r}.")
    return number
