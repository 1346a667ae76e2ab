"""Weighted sums of objectives, and their text form: ``ketchup``, ``ketchup + 0.1 sft``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from kvar.distill.objectives.base import OBJECTIVES, Objective
from kvar.distill.objectives.batch import Settings, Source
from kvar.distill.objectives.normalise import normalise
from kvar.distill.objectives.passes import Passes
from kvar.estimators import Estimator, SampledReward, Score
from kvar.estimators.rewards.score_function import check_score_function

__all__ = ["Mixture", "parse_objective"]


@dataclass(frozen=True)
class Mixture:
    """One objective or several, with weights.

    Attributes:
        parts: (weight, objective), in the order given.
    """

    parts: tuple[tuple[float, Objective], ...]

    @property
    def name(self) -> str:
        """``ketchup``, or ``ketchup + 0.1 sft``; ``parse_objective`` reads it back."""
        return " + ".join(o.name if weight == 1 else f"{_short(weight)} {o.name}" for weight, o in self.parts)

    def __contains__(self, name: str) -> bool:
        return any(o.name == name for _, o in self.parts)

    def sources(self, settings: Settings, on_policy: bool) -> set[Source]:
        """Whose responses a step needs; ``on_policy`` is GKD's choice for the step."""
        return {source for _, o in self.parts for source in o.sources(settings, on_policy)}

    def estimators(self, settings: Settings) -> dict[str, Estimator]:
        """The estimator of every policy-gradient objective, by the objective's name."""
        return {o.name: o.estimator(settings) for _, o in self.parts if o.estimator is not None}

    def corrects(self, settings: Settings) -> bool:
        """Whether every part on the student's responses has a factor for those that another policy drew."""
        estimators = self.estimators(settings)
        named = settings.importance_weight == "behaviour"
        return bool(self.parts) and all(
            o.name in estimators
            and (estimators[o.name].correction is not None or (o.name != "policy-gradient" and named))
            for _, o in self.parts
            if "student" in o.sources(settings, True)
        )

    def needs_teacher(self, settings: Settings) -> bool:
        """Whether any part needs a teacher: a policy gradient whose reward is the task's score does not."""
        without = [name for name, e in self.estimators(settings).items() if isinstance(e.reward, SampledReward)]
        return any(o.teacher and o.name not in without for _, o in self.parts)

    def check_given(self, settings: Settings, teacher: Any, score: Any) -> None:
        """Raise ValueError where a part needs a teacher or a score that is None, or the score is no such function."""
        check_score_function(score, "texts, examples")
        if self.needs_teacher(settings) and teacher is None:
            raise ValueError(f"objective {self.name!r} needs a teacher: pass teacher=, or use objective sft.")
        if score is None and any(isinstance(e.reward, Score) for e in self.estimators(settings).values()):
            raise ValueError(
                f"estimator {settings.estimator!r} needs score=, a function of responses and their examples such as a "
                "task's example_scores."
            )

    def loss(self, passes: Passes, settings: Settings) -> tuple[Tensor, dict[str, float]]:
        """The scalar to minimise on this micro-batch, and numbers to log.

        Every term is normalised by its source's counts. With several objectives, each one's unweighted loss is logged
        as ``loss_<name>``.
        """
        total: Tensor | None = None
        logs: dict[str, float] = {}
        for weight, o in self.parts:
            loss = o.compute(passes, settings)
            shares = [
                normalise(
                    term.per_token,
                    passes.responses(term.source).mask,
                    passes.batch.counts[term.source],
                    settings.normalisation,
                )
                for term in loss.terms
            ]
            value = sum(shares[1:], start=shares[0])
            logs.update(loss.logs)
            if len(self.parts) > 1:
                logs[f"loss_{o.name}"] = float(value.detach())
            total = weight * value if total is None else total + weight * value
        assert total is not None  # a mixture has parts
        return total, logs


def parse_objective(given: Any) -> Mixture:
    """Parse a mixture of objectives.

    Args:
        given: ``"ketchup"``, ``"ketchup + 0.1 sft"`` (with or without ``*`` between weight and name), or
            ``{"ketchup": 1, "sft": 0.1}``.

    Raises:
        ValueError: an unknown or repeated name, a weight that is not a positive number, or no name.

    Examples:
        >>> parse_objective("ketchup + 0.1*sft").name
        'ketchup + 0.1 sft'
        >>> parse_objective({"kl": 0.5, "js": 1}).name
        '0.5 kl + js'
    """
    parts: list[tuple[float, Objective]] = []
    for weight, name in _terms(given):
        if name not in OBJECTIVES:
            raise ValueError(f"objective {name!r} is unknown; choose one of: {', '.join(OBJECTIVES)}.")
        if any(name == o.name for _, o in parts):
            raise ValueError(f"objective {given!r} names {name} twice; add up its weights.")
        if not (math.isfinite(weight) and weight > 0):
            raise ValueError(f"objective {given!r}: the weight of {name} must be a positive number; got {weight:g}.")
        parts.append((weight, OBJECTIVES[name]))
    return Mixture(tuple(parts))


def _short(value: float) -> str:
    """The shortest text that reads back as ``value``."""
    return format(value, "g") if float(format(value, "g")) == value else repr(value)


def _terms(given: Any) -> list[tuple[float, str]]:
    if isinstance(given, Mapping) and given:
        for name, weight in given.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float):
                raise ValueError(f"objective: the weight of {name} must be a positive number; got {weight!r}.")
        return [(float(weight), str(name)) for name, weight in given.items()]
    if not isinstance(given, str) or not given.strip():
        raise ValueError(
            f"objective must be a name, a sum such as 'ketchup + 0.1 sft', or a mapping from name to weight; got "
            f"{given!r}."
        )
    terms = []
    for part in re.split(r"(?<!\d[eE])\+", given):
        match = re.fullmatch(r"\s*(?:([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*\*?\s*)?([A-Za-z][\w-]*)\s*", part)
        if match is None:
            raise ValueError(
                f"objective {given!r}: {part.strip()!r} is not a weighted name. Write for instance 'ketchup + 0.1 sft'."
            )
        try:
            weight = 1.0 if match[1] is None else float(match[1])
        except ValueError:
            raise ValueError(f"objective {given!r}: the weight {match[1]!r} is not a number.") from None
        terms.append((weight, match[2].lower()))
    return terms
