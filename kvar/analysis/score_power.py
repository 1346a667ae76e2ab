"""tr F(theta), the Fisher trace as trajectories see it; theory.md (16)."""

from __future__ import annotations

import numpy as np

from kvar.analysis.replicates import Unit, need_pairs, replicates
from kvar.analysis.statistic_table import estimate
from kvar.analysis.theory.calibration import unit_of_rows
from kvar.analysis.trace_covariance import trace_of
from kvar.gradients.moments import GradientMoments
from kvar.intervals.jackknife import Array, Estimate

__all__ = ["score_power", "score_power_of", "variance_per_score_power"]


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
    units = replicates(moments, group, unit).units
    return estimate("score_power", score_power_of(moments, group, units), units, confidence)


def score_power_of(moments: GradientMoments, group: str, units: int) -> Array:
    """(1+U, 1) the mean score power with all units, then with each left out.

    Args:
        moments: measured with ``score_power=True``.
        group: parameter group.
        units: U of the replicates that it is held beside.

    Raises:
        ValueError: score power was not measured.
    """
    power = moments[group].score_power
    if power is None:
        raise ValueError("score power was not measured: pass score_power=True to gradient_moments.")
    member = unit_of_rows(moments, units)
    total = np.bincount(member, power.numpy(), units)
    size = np.bincount(member, minlength=units)
    left = (total.sum() - total) / np.maximum(size.sum() - size, 1)
    return np.concatenate([[total.sum() / size.sum()], left])[:, None]


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
        ValueError: score power was not measured, or fields="norms".
    """
    need_pairs(moments, group, "variance_per_score_power")
    data = replicates(moments, group, unit)
    power = score_power_of(moments, group, data.units)
    return estimate("variance_per_score_power", trace_of(data) / power, data.units, confidence)
