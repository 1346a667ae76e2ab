"""What a gradient probe found at one step."""

from __future__ import annotations

from dataclasses import dataclass

from kvar.gradients import GradientMoments
from kvar.returns import TokenValues
from kvar.rollouts import Rollouts

__all__ = ["Measurement"]


@dataclass(frozen=True)
class Measurement:
    """One probe: what was sampled, what the teacher said, and the moments of every estimator.

    Attributes:
        step: training step.
        rollouts: N responses of the policy at that step.
        values: (N, T) teacher values; with a reward in place of a teacher, q = reward and V = 0.
        moments: inner products of the N trajectories' gradients.
        seconds: wall time of sampling, scoring and gradients together.
    """

    step: int
    rollouts: Rollouts
    values: TokenValues
    moments: GradientMoments
    seconds: float
