"""Signal-to-noise ratio of a batch-mean gradient; theory.md, section 4."""

from __future__ import annotations

import numpy as np

from kvar.analysis.replicates import Replicates, Unit, replicates
from kvar.analysis.signal import signal_of
from kvar.analysis.statistic_table import estimate
from kvar.analysis.trace_covariance import trace_of
from kvar.gradients.moments import GradientMoments
from kvar.intervals.jackknife import Array, Estimate

__all__ = ["snr", "snr_of"]


def snr_of(data: Replicates, batch: float) -> Array:
    """(1+U, E) B |E g|^2 / tr Cov.

    Raises:
        ValueError: a batch that is not positive.
    """
    if not batch > 0:
        raise ValueError(f"batch must be a positive number of trajectories; got {batch!r}.")
    with np.errstate(all="ignore"):
        return np.asarray(float(batch) * signal_of(data) / trace_of(data))


def snr(
    moments: GradientMoments,
    group: str = "all",
    batch: float | None = None,
    unit: Unit = None,
    confidence: float = 0.95,
) -> Estimate:
    """|E g|^2 / (tr Cov / B): power of the mean of B trajectories' gradients over that of its noise.

    A ratio of the unbiased estimates (12); may be negative where the signal is not resolved.

    Args:
        moments: of E estimators.
        group: parameter group.
        batch: B; the N trajectories measured by default.
        unit: what was drawn independently.
        confidence: of the interval.

    Returns:
        (E,) pure numbers.

    Raises:
        ValueError: a batch that is not positive, or as :func:`kvar.analysis.signal.signal`.
    """
    data = replicates(moments, group, unit)
    return estimate("snr", snr_of(data, float(data.n[0].max()) if batch is None else batch), data.units, confidence)
