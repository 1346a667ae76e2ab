"""Agreement in direction of two independent batches' gradients."""

from __future__ import annotations

import numpy as np

from kvar.analysis.replicates import Unit, need_pairs, replicates, resolve_reference
from kvar.analysis.signal import signal_of
from kvar.analysis.trace_covariance import trace_of
from kvar.gradients.moments import GradientMoments
from kvar.intervals.jackknife import Estimate, jackknife

__all__ = ["cosine"]


def cosine(
    moments: GradientMoments,
    group: str = "all",
    batch: float | None = None,
    reference: str | int | None = None,
    unit: Unit = None,
    confidence: float = 0.95,
) -> Estimate:
    """Cosine between the mean gradients of two independent batches of B trajectories, in mean square.

    E<a, b> / sqrt(E|a|^2 E|b|^2), a ratio of averages: for one estimator |E g|^2 / (|E g|^2 + tr Cov / B), from (12).

    Args:
        moments: of E estimators.
        group: parameter group.
        batch: B; the N trajectories measured by default; ``math.inf`` compares expectations.
        reference: the second batch's estimator, by name or number; None: each estimator with itself.
        unit: what was drawn independently.
        confidence: of the interval.

    Returns:
        (E,) cosines; negative where the signal is not resolved.

    Raises:
        ValueError: a batch that is not positive, an unknown reference, or a reference with fields="norms".
    """
    if reference is not None:
        need_pairs(moments, group, "cosine with a reference")
    data = replicates(moments, group, unit)
    size = float(data.n[0].max()) if batch is None else float(batch)
    if not size > 0:
        raise ValueError(f"batch must be a positive number of trajectories; got {batch!r}.")
    with np.errstate(all="ignore"):
        power = signal_of(data) + trace_of(data) / size
        if reference is None:
            value = signal_of(data) / power
        else:
            r = resolve_reference(moments.names, reference)
            value = data.signal()[:, :, r] / np.sqrt(power * power[:, r : r + 1])
    return jackknife(value, data.units, confidence, scale="cosine")
