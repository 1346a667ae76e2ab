"""|E g|^2, the squared length of the mean gradient, without its own noise; theory.md (12)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kvar.analysis.replicates import Replicates, Unit, replicates
from kvar.analysis.statistic_table import estimate
from kvar.gradients.moments import GradientMoments
from kvar.intervals.jackknife import Array, Estimate

__all__ = ["signal", "signal_of", "told_from_zero"]


def signal_of(data: Replicates) -> Array:
    """(1+U, E) (N |gbar|^2 - m2)/(N-1), or by distinct prompts."""
    return np.asarray(np.diagonal(data.signal(), axis1=1, axis2=2))


def told_from_zero(data: Replicates, confidence: float = 0.95) -> NDArray[np.bool_]:
    """(E,) whether the interval of |E g|^2 lies above 0: for a target, whether it is resolved."""
    return np.asarray(estimate("signal", signal_of(data), data.units, confidence).low > 0)


def signal(moments: GradientMoments, group: str = "all", unit: Unit = None, confidence: float = 0.95) -> Estimate:
    """Unbiased estimate of |E g|^2, (12); it may be negative and is never clamped.

    Where the signal is lost in noise (|E g|^2 well below tr Cov / N) the jackknife overstates the error, by up to a
    factor of sqrt(2), so the interval is too wide there rather than too narrow. On token MDPs 95 % intervals
    covered 94 to 96 % with N = 512 trajectories, 92 to 96 % with N = 128.

    Args:
        moments: of E estimators.
        group: parameter group.
        unit: what was drawn independently; with prompts drawn as clusters of rollouts, (12) counts a part
            between / M of the variance as signal, unit="prompt" does not.
        confidence: of the interval.

    Returns:
        (E,) squared-gradient units; bounds are NaN for moments with fields="norms".

    Raises:
        ValueError: fewer than two trajectories, or too few prompts for the unit.
    """
    data = replicates(moments, group, unit)
    return estimate("signal", signal_of(data), data.units, confidence)
