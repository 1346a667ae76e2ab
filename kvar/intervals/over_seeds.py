"""The mean of independent runs (seeds), with an interval from the spread among them."""

from __future__ import annotations

from typing import Literal

import numpy as np

from kvar.intervals.jackknife import Array
from kvar.intervals.quantiles import check_confidence, t_quantile

__all__ = ["half_width", "mean_with_interval"]


def mean_with_interval(
    values: Array, confidence: float = 0.95, scale: Literal["plain", "log"] = "plain"
) -> tuple[float, float, float]:
    """Mean of independent runs with a t interval of (runs - 1) degrees of freedom.

    What differs between runs, sampling noise within each included, is the spread among them; nothing else is assumed.

    Args:
        values: (S,) one number a run; NaN are refused by the result being NaN.
        confidence: of the interval.
        scale: "log" takes the geometric mean, for ratios and variances; plain where a value is not positive.

    Returns:
        Mean, low, high; the ends are NaN for one run.

    Raises:
        ValueError: no value, or a confidence outside (0, 1).

    Example:
        >>> [round(x, 2) for x in mean_with_interval(np.array([1.0, 2.0, 3.0]))]
        [2.0, -0.48, 4.48]
    """
    check_confidence(confidence)
    x = np.asarray(values, dtype=float)
    if not len(x):
        raise ValueError("values is empty: combining seeds needs at least one run.")
    logs = scale == "log" and bool((x > 0).all())
    y = np.log(x) if logs else x
    centre = float(y.mean())
    half = float(half_width(y.std(ddof=1, keepdims=True), np.array([len(y)]), confidence)[0]) if len(y) > 1 else np.nan
    ends = (centre, centre - half, centre + half)
    return (float(np.exp(ends[0])), float(np.exp(ends[1])), float(np.exp(ends[2]))) if logs else ends


def half_width(spread: Array, n: Array, confidence: float) -> Array:
    """Half a t interval from the standard deviation over n runs; NaN for one run."""
    with np.errstate(invalid="ignore"):
        return np.asarray(t_quantile(n - 1.0, confidence) * spread / np.sqrt(n))
