"""The input of objectives: a micro-batch of responses and the settings of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from torch import Tensor

from kvar.distill.objectives.normalise import Counts
from kvar.returns import TokenValues
from kvar.rollouts import Rollouts

__all__ = ["Batch", "Settings", "Source"]

Source = Literal["data", "student", "teacher"]


class Settings(Protocol):
    """The settings that objectives read; ``DistillationConfig`` documents each."""

    estimator: str | None
    kernel: str
    baseline: str | None
    centre: Literal["mean", "logsumexp", "none"]
    value: Literal["max", "soft"]
    importance_weight: Literal["behaviour", "policy", "none"]
    importance_clip: float | None
    return_scale: float
    return_clip: float | None
    length_normalised_returns: bool
    normalisation: Literal["token-mean", "sequence-mean", "sequence-token-mean"]
    entropy_weight: float
    uniform_weight: float
    responses: Source | None
    gkd_beta: float
    gkd_lambda: float
    label_smoothing_factor: float
    teacher_micro_batch: int | None


@dataclass(frozen=True)
class Batch:
    """One micro-batch of an optimiser step.

    Attributes:
        responses: by source (data, student, teacher), those that the objectives need.
        counts: by source, the divisors of sums over responses; see :mod:`kvar.distill.objectives.normalise`.
        values: the teacher's values of the student's responses.
        advantages: by policy-gradient objective: (N, T) returns less baseline of the student's responses.
        exact: likewise, the coefficient of the exact sum of every state; no entry for estimators without one.
        rewards: likewise, the sampled rewards where the estimator names one.
        on_policy: whether GKD takes this step on the student's responses.
    """

    responses: Mapping[Source, Rollouts]
    counts: Mapping[Source, Counts]
    values: TokenValues | None = None
    advantages: Mapping[str, Tensor] = field(default_factory=dict)
    exact: Mapping[str, Tensor] = field(default_factory=dict)
    rewards: Mapping[str, Tensor] = field(default_factory=dict)
    on_policy: bool = False

    def rows(self, start: int, stop: int, rollouts_per_prompt: int) -> Batch:
        """The part of prompts ``start`` to ``stop``, with shared padding removed; counts are kept."""
        responses: dict[Source, Rollouts] = {}
        values = self.values
        tokens = {"advantages": self.advantages, "exact": self.exact, "rewards": self.rewards}
        for source, all_rows in self.responses.items():
            repeats = rollouts_per_prompt if source == "student" else 1
            rows = slice(start * repeats, stop * repeats)
            part = all_rows[rows]
            longest = max(int(part.lengths.max()), 1)
            width = max(int(part.prompt_mask.sum(dim=1).max()), 1)
            right_padded = bool((part.prompt_mask[:, width:] == 0).all())
            prompts = slice(0, width if right_padded else None)
            responses[source] = replace(
                part.until(longest),
                prompt_ids=part.prompt_ids[:, prompts],
                prompt_mask=part.prompt_mask[:, prompts],
            )
            if source == "student":
                values = values and TokenValues(values.q[rows, :longest], values.v[rows, :longest])
                tokens = {k: {name: x[rows, :longest] for name, x in each.items()} for k, each in tokens.items()}
        return Batch(responses, self.counts, values, **tokens, on_policy=self.on_policy)
