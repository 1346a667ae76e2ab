"""What a measurement holds; :class:`kvar.measurement.Measurement` is this with its methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kvar.gradients import GradientMoments
from kvar.returns import TokenValues
from kvar.rollouts import Rollouts

__all__ = ["MeasurementData"]


@dataclass(frozen=True, eq=False, repr=False)
class MeasurementData:
    """What was sampled, what the teacher said, and the gradient's moments of every estimator.

    Attributes:
        step: training step, 0 for a measurement that stands alone.
        rollouts: N responses of the policy at that step.
        values: (N, T) teacher values; with a reward in place of a teacher, q = reward and V = 0.
        moments: inner products of the N trajectories' gradients.
        seconds: wall time of sampling, scoring and gradients together.
        config: what was measured and how, JSON types: student, parameters, teacher, seed and so on.
    """

    step: int
    rollouts: Rollouts
    values: TokenValues
    moments: GradientMoments
    seconds: float
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The E estimators' names."""
        return self.moments.names

    @property
    def student(self) -> str:
        """What tables and figures call the student."""
        return str(self.config.get("student") or "student")
