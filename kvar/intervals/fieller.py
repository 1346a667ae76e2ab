"""A ratio of two means over independent runs, where the lower one may not be resolved from zero."""

from __future__ import annotations

import numpy as np

from kvar.intervals.jackknife import Array
from kvar.intervals.quantiles import check_confidence, t_quantile

__all__ = ["ratio_of_means"]


def ratio_of_means(numerator: Array, denominator: Array, confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean of one quantity over the mean of another, paired by run, with Fieller's interval.

    The interval holds every ratio r for which a t test of (runs - 1) degrees of freedom does not tell the mean of
    ``numerator - r denominator`` from zero. Where the denominator itself is not told from zero no interval bounds the
    ratio on both sides; the ends are then infinite. (The average of single ratios has no such honest interval.)

    Args:
        numerator: (S,) one number a run.
        denominator: (S,) of the same runs.
        confidence: of the interval.

    Returns:
        Ratio, low, high. The ends are NaN for one run; all are NaN where a value is.

    Raises:
        ValueError: no run, arrays of different lengths, or a confidence outside (0, 1).

    Example:
        >>> [round(x, 3) for x in ratio_of_means(np.array([2.0, 2.2, 1.8]), np.array([1.0, 1.0, 1.0]))]
        [2.0, 1.503, 2.497]
        >>> ratio_of_means(np.array([2.0, 2.2, 1.8]), np.array([1.0, -1.0, 1.0]))[1:]
        (-inf, inf)
    """
    check_confidence(confidence)
    x, y = np.asarray(numerator, dtype=float), np.asarray(denominator, dtype=float)
    if not len(x) or x.shape != y.shape:
        raise ValueError(f"numerator and denominator must be of the same runs, one at least; got {x.shape}, {y.shape}.")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return np.nan, np.nan, np.nan
    a, b, runs = float(x.mean()), float(y.mean()), len(x)
    value = a / b if b else np.nan
    if runs < 2:
        return value, np.nan, np.nan
    t2 = float(t_quantile(runs - 1, confidence)) ** 2 / runs
    xx, yy = float(x.var(ddof=1)), float(y.var(ddof=1))
    xy = float(((x - a) * (y - b)).sum() / (runs - 1))
    square, cross, constant = b * b - t2 * yy, a * b - t2 * xy, a * a - t2 * xx
    if square <= 0:
        return value, -np.inf, np.inf
    root = np.sqrt(max(cross * cross - square * constant, 0.0))
    return value, float((cross - root) / square), float((cross + root) / square)
