"""The pieces of (25) from gradient moments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kvar.analysis.frames.reference import default_reference
from kvar.analysis.replicates import Unit, need_pairs
from kvar.analysis.signal import told_from_zero
from kvar.analysis.step.design import check_design, design_replicates, prompts_of, step_covariance
from kvar.gradients.moments import GradientMoments
from kvar.intervals.jackknife import Array

__all__ = ["Pieces", "efficiency_of", "pieces_of", "square_of", "times"]


@dataclass(frozen=True, eq=False)
class Pieces:
    """The pieces of (25) for E estimators, with all U units and with each left out.

    Attributes:
        signal: (1+U, E, E), M.
        step: (1+U, E, E), C / B; 0 for two estimators that share no trajectory.
        toward: (1+U, E), m.
        true: (1+U,), |g*|^2.
        resolved: whether it is told from zero, as in :func:`kvar.analysis.toward`.
        reference: the estimator that stands for g*.
        units: U.
    """

    signal: Array
    step: Array
    toward: Array
    true: Array
    resolved: bool
    reference: str
    units: int

    @property
    def power(self) -> Array:
        """(1+U, E, E), M + C / B."""
        return self.signal + self.step

    @property
    def noise(self) -> Array:
        """(E, E) the jackknife covariance of m."""
        left_out = self.toward[1:] - self.toward[1:].mean(axis=0)
        return np.asarray((self.units - 1) / self.units * left_out.T @ left_out)


def pieces_of(
    moments: GradientMoments, batch: float, target: str, rollouts_per_prompt: float, group: str, unit: Unit, what: str
) -> Pieces:
    """The pieces for a step of B trajectories.

    Args:
        moments: of E estimators, with all fields.
        batch: B.
        target: an objective or a measured estimator, see :func:`kvar.analysis.frames.reference.default_reference`.
        rollouts_per_prompt: R.
        group: parameter group.
        unit: what was drawn independently.
        what: begins the message of an error.

    Raises:
        ValueError: fields="norms", a batch or rollouts below 1, a target that is not measured, or (for R > 1) no
            prompts with two rollouts.
    """
    need_pairs(moments, group, what)
    if not batch >= 1:
        raise ValueError(f"batch must be at least 1 trajectory; got {batch!r}.")
    prompts = prompts_of(batch, rollouts_per_prompt)
    check_design(prompts, rollouts_per_prompt)
    name = default_reference(moments.names, target)
    r = moments.names.index(name)
    data = design_replicates(moments, group, unit, rollouts_per_prompt)
    signal = data.signal()
    step = np.nan_to_num(step_covariance(data, prompts, rollouts_per_prompt))
    resolved = bool(told_from_zero(data)[r])
    return Pieces(signal, step, signal[:, :, r], signal[:, r, r], resolved, name, data.units)


def efficiency_of(weights: Array, power: Array, toward: Array, true: Array) -> Array:
    """(...) efficiency with its sign, from the pieces of (25).

    Args:
        weights: (..., G).
        power: (..., G, G), M + C / B.
        toward: (..., G), m.
        true: (...), |g*|^2.
    """
    along = np.asarray((weights * toward).sum(axis=-1))
    with np.errstate(all="ignore"):
        return np.asarray(along * np.abs(along) / (square_of(weights, power) * true))


def times(matrix: Array, vector: Array) -> Array:
    """(..., G) products of matrices (..., G, G) and vectors (..., G)."""
    return np.asarray((matrix @ vector[..., None])[..., 0])


def square_of(w: Array, power: Array) -> Array:
    """(...) w A w."""
    return np.asarray((w * times(power, w)).sum(axis=-1))
