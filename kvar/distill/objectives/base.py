"""Objectives: functions from the forward passes over a batch to terms of a loss, and their registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from kvar.distill.objectives.batch import Settings, Source
from kvar.distill.objectives.passes import Passes
from kvar.estimators import Estimator

__all__ = ["OBJECTIVES", "Loss", "Objective", "Term", "objective"]


@dataclass(frozen=True)
class Term:
    """One sum of a loss.

    Attributes:
        per_token: (N, T) with gradient; padding may hold anything finite.
        source: whose responses the tokens are.
    """

    per_token: Tensor
    source: Source


@dataclass(frozen=True)
class Loss:
    """The terms to be normalised and added, and numbers to log."""

    terms: tuple[Term, ...]
    logs: dict[str, float] = field(default_factory=dict)


Compute = Callable[[Passes, Settings], Loss]
Sources = Callable[[Settings, bool], tuple[Source, ...]]


@dataclass(frozen=True)
class Objective:
    """A named objective.

    Attributes:
        name: as ``DistillationConfig.objective`` spells it.
        compute: (forward passes, settings) -> Loss.
        sources: (settings, whether GKD's step is on-policy) -> whose responses it needs.
        teacher: whether it needs a teacher; a policy gradient does unless its reward is the task's score.
        estimator: settings -> the estimator of a policy gradient on the student's responses; None for others.
    """

    name: str
    compute: Compute
    sources: Sources
    teacher: bool
    estimator: Callable[[Settings], Estimator] | None = None


OBJECTIVES: dict[str, Objective] = {}


def objective(
    name: str, *, sources: Sources, teacher: bool, estimator: Callable[[Settings], Estimator] | None = None
) -> Callable[[Compute], Compute]:
    """Register a function as the objective ``name``."""

    def register(compute: Compute) -> Compute:
        OBJECTIVES[name] = Objective(name, compute, sources, teacher, estimator)
        return compute

    return register
