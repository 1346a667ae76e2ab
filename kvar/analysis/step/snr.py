"""Signal-to-noise ratio of a batch-mean gradient; theory.md, section 4."""

from __future__ import annotations

import numpy as np

from kvar.analysis.replicates import Replicates, Unit
from kvar.analysis.signal import signal_of
from kvar.analysis.statistic_table import estimate
from kvar.analysis.step.design import design_replicates, step_variance
from kvar.analysis.trace_covariance import trace_of
from kvar.gradients.moments import GradientMoments
from kvar.intervals.jackknife import Array, Estimate

__all__ = ["snr", "snr_of"]


def snr_of(data: Replicates, batch: float, rollouts_per_prompt: float = 1) -> Array:
    """(1+U, E) |E g|^2 over the variance of a step of B / R prompts x R rollouts, (10); for R = 1 B |E g|^2 / tr Cov.

    Raises:
        ValueError: a batch that is not positive.
    """
    if not batch > 0:
        raise ValueError(f"batch must be a positive number of trajectories; got {batch!r}.")
    r = rollouts_per_prompt
    noise = trace_of(data) / float(batch) if r == 1 else step_variance(data, batch / r, r)
    with np.errstate(all="ignore"):
        return np.asarray(signal_of(data) / noise)


def snr(
    moments: GradientMoments,
    group: str = "all",
    batch: float | None = None,
    unit: Unit = None,
    confidence: float = 0.95,
    rollouts_per_prompt: float = 1,
) -> Estimate:
    """|E g|^2 / (tr Cov / B): power of the mean of B trajectories' gradients over that of its noise.

    For R > 1 the noise is that of B / R prompts x R rollouts, (between + within / R) R / B, (10).

    A ratio of the unbiased estimates (12); may be negative where the signal is not resolved.

    Args:
        moments: of E estimators.
        group: parameter group.
        batch: B; the N trajectories measured by default.
        unit: what was drawn independently.
        confidence: of the interval.
        rollouts_per_prompt: R; above 1 it needs prompts measured with two rollouts or more.

    Returns:
        (E,) pure numbers.

    Raises:
        ValueError: a batch that is not positive, an impossible design, or as :func:`kvar.analysis.signal.signal`.
    """
    data = design_replicates(moments, group, unit, rollouts_per_prompt)
    size = float(data.n[0].max()) if batch is None else batch
    return estimate("snr", snr_of(data, size, rollouts_per_prompt), data.units, confidence)
