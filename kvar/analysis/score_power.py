"""tr F(theta), the Fisher trace as trajectories see it; theory.md (16)."""

from __future__ import annotations

import numpy as np

from kvar.analysis.replicates import Unit, replicates
from kvar.analysis.theory.calibration import unit_of_rows
from kvar.analysis.trace_covariance import trace_of
from kvar.gradients.moments import GradientMoments
from kvar.intervals.jackknife import Array, Estimate, jackknife

__all__ = ["score_power", "variance_per_score_power"]


def score_power(moments: GradientMoments, group: str = "all", unit: Unit = None, confidence: float = 0.95) -> Estimate:
    """E sum_t |s_t|^2, the score power of a trajectory: tr F(theta) with F = E sum_t s_t s_t^T.

    Scores of distinct tokens are uncorrelated, E[s_u | s_t, s_u's state] = 0, so it is also E|sum_t s_t|^2, the
    variance of the estimator whose returns are all 1.

    Args:
        moments: measured with ``score_power=True``.
        group: parameter group.
        unit: what was drawn independently.
        confidence: of the interval.

    Returns:
        One number, shape (1,).

    Raises:
        ValueError: score power was not measured.
    """
    units, member = _units(moments, group, unit)
    return jackknife(_mean_power(moments, group, member, units), units, confidence, scale="log")


def variance_per_score_power(
    moments: GradientMoments, group: str = "all", unit: Unit = None, confidence: float = 0.95
) -> Estimate:
    """Variance per score power, tr Cov(g) / tr F: flat over student sizes if (16) tells the whole story.

    Args:
        moments: measured with ``score_power=True`` and all fields.
        group: parameter group.
        unit: what was drawn independently; numerator and denominator leave the same units out.
        confidence: of the interval.

    Returns:
        (E,) in squared-return units.

    Raises:
        ValueError: score power was not measured.
    """
    units, member = _units(moments, group, unit)
    trace = trace_of(replicates(moments, group, unit))
    if len(trace) == 1:
        raise ValueError("an interval needs all moments: measure with fields='all' instead of 'norms'.")
    return jackknife(trace / _mean_power(moments, group, member, units), units, confidence, scale="log")


def _units(moments: GradientMoments, group: str, unit: Unit) -> tuple[int, np.ndarray]:
    if moments[group].score_power is None:
        raise ValueError("score power was not measured: pass score_power=True to gradient_moments.")
    units = replicates(moments, group, unit).units
    return units, unit_of_rows(moments, units)


def _mean_power(moments: GradientMoments, group: str, member: np.ndarray, units: int) -> Array:
    """(1 + U, 1)."""
    power = moments[group].score_power
    assert power is not None  # checked by the caller
    total = np.bincount(member, power.numpy(), units)
    size = np.bincount(member, minlength=units)
    left = (total.sum() - total) / np.maximum(size.sum() - size, 1)
    return np.concatenate([[total.sum() / size.sum()], left])[:, None]
