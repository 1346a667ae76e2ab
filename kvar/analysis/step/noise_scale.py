"""The simple gradient noise scale, also the relative variance; theory.md, section 4."""

from __future__ import annotations

import numpy as np

from kvar.analysis.replicates import Replicates, Unit, replicates
from kvar.analysis.signal import signal_of
from kvar.analysis.statistic_table import estimate
from kvar.analysis.trace_covariance import trace_of
from kvar.gradients.moments import GradientMoments
from kvar.intervals.jackknife import Array, Estimate

__all__ = ["noise_scale", "noise_scale_of", "relative_variance"]


def noise_scale_of(data: Replicates) -> Array:
    """(1+U, E) tr Cov / |E g|^2."""
    with np.errstate(all="ignore"):
        return np.asarray(trace_of(data) / signal_of(data))


def noise_scale(moments: GradientMoments, group: str = "all", unit: Unit = None, confidence: float = 0.95) -> Estimate:
    """B_simple = tr Cov / |E g|^2, a ratio of averages: the batch at which noise and signal are equal.

    Free of the scale of g. Where the signal is not resolved the ratio is unstable and may be negative: look at
    :func:`kvar.analysis.snr`, its inverse, there.

    Args:
        moments: of E estimators.
        group: parameter group.
        unit: what was drawn independently.
        confidence: of the interval, formed for the logarithm where all replicates are positive.

    Returns:
        (E,) trajectories.

    Raises:
        ValueError: as :func:`kvar.analysis.signal.signal`.
    """
    data = replicates(moments, group, unit)
    return estimate("noise_scale", noise_scale_of(data), data.units, confidence)


relative_variance = noise_scale
