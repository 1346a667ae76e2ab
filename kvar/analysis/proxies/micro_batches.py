"""The noise scale from the norms of two batch sizes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kvar.intervals.jackknife import Array

__all__ = ["NoiseScale", "micro_batch_noise_scale"]


@dataclass(frozen=True)
class NoiseScale:
    """Signal, noise and their ratio, from squared gradient norms; floats or arrays of one shape.

    Attributes:
        signal: estimate of |E g|^2; it may be negative.
        trace: estimate of tr Cov(g) of one trajectory.
        value: trace / signal, the simple noise scale in trajectories; NaN for a signal of 0.
    """

    signal: Array
    trace: Array
    value: Array


def micro_batch_noise_scale(
    small_square: Array | float, large_square: Array | float, small: float, large: float
) -> NoiseScale:
    """Signal and noise from |G|^2 of mean gradients over b and over B > b trajectories, as accumulation gives them.

    E|G_B|^2 = |E g|^2 + tr Cov / B at both sizes, so

        |E g|^2 = (B |G_B|^2 - b |G_b|^2) / (B - b),    tr Cov = (|G_b|^2 - |G_B|^2) / (1/b - 1/B),

    both without bias. Their ratio is biased and heavy-tailed, so average the squared norms (over micro-batches and over
    steps) first, and form the ratio once. With b = 1 these are the estimates of theory.md (12). Source: McCandlish
    et al. 2018 (arXiv 1812.06162), appendix A.1.

    Args:
        small_square: |G_b|^2, the mean over micro-batches.
        large_square: |G_B|^2 of the whole batch, the mean gradient of the same micro-batches.
        small: b, trajectories in a micro-batch.
        large: B, trajectories in the batch.

    Raises:
        ValueError: not 0 < b < B.

    Example:
        >>> scale = micro_batch_noise_scale(small_square=5.0, large_square=2.0, small=1, large=4)
        >>> float(scale.signal), float(scale.trace), float(scale.value)
        (1.0, 4.0, 4.0)
    """
    if not 0 < small < large:
        raise ValueError(f"small must be positive and below large; got small={small!r}, large={large!r}.")
    b, whole = np.asarray(small_square, dtype=float), np.asarray(large_square, dtype=float)
    signal = (large * whole - small * b) / (large - small)
    trace = (b - whole) / (1 / small - 1 / large)
    with np.errstate(all="ignore"):
        return NoiseScale(signal, trace, np.where(signal != 0, trace / np.where(signal != 0, signal, 1.0), np.nan))
