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
    """One sum of a loss: a number for each token, with gradient, and whose responses the tokens are.

    Attributes:
        per_token: (N, T); what padding holds does not matter, as long as it is finite.
        source: whose responses.
    """

    per_token: Tensor
    source: Source


@dataclass(frozen=True)
class Loss:
    """The terms to be normalised and added, and numbers worth logging beside them."""

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
        sources: (settings, whether GKD's coin says on-policy) -> whose responses it needs.
        teacher: whether it needs a teacher; a policy gradient does unless its reward is the task's score.
        estimator: of a policy gradient on the student's responses: settings -> what its gradient is.
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
