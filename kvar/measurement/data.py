"""The data of a measurement; :class:`kvar.measurement.Measurement` adds methods."""

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
    """Rollouts, the teacher's values, and the gradient moments of every estimator.

    Attributes:
        step: training step, 0 outside training.
        rollouts: N responses of the policy at that step.
        values: (N, T) teacher values; with a reward in place of a teacher, q = reward and V = 0.
        moments: inner products of the N trajectories' gradients.
        seconds: wall time of sampling, scoring and gradients together.
        config: settings of the measurement, JSON types: student, parameters, teacher, seed and so on; under "numbers"
            further scalars of the responses by name, such as "effective_sample_size"; under "step" the trajectories
            ("batch") and "rollouts_per_prompt" of the step of the training that was probed.
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
        """The student's name in tables and figures."""
        return str(self.config.get("student") or "student")
