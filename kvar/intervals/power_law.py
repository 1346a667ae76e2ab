"""How a statistic grows with the student: fitted exponents, and whether it is flat over sizes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kvar.intervals.jackknife import Array
from kvar.intervals.quantiles import check_confidence, normal_quantile, t_quantile

__all__ = ["Flatness", "PowerLaw", "flatness", "power_law"]


@dataclass(frozen=True)
class PowerLaw:
    """y = scale * x^exponent, fitted to logarithms.

    Attributes:
        exponent: the slope of log y on log x.
        low: lower end of its interval; NaN for two sizes without standard errors.
        high: upper end.
        scale: y at x = 1.
        n: points.
    """

    exponent: float
    low: float
    high: float
    scale: float
    n: int


@dataclass(frozen=True)
class Flatness:
    """Cochran's test of one common value for all sizes.

    Attributes:
        ratio: largest over smallest value.
        ratio_low: lower end of that ratio's interval (of these two sizes; the pick of the extremes is not counted).
        ratio_high: upper end.
        q: sum of squared standardised deviations of log y from their weighted mean.
        p: probability of a q as large, were y flat.
        n: sizes.
    """

    ratio: float
    ratio_low: float
    ratio_high: float
    q: float
    p: float
    n: int


def power_law(x: Array, y: Array, log_error: Array | None = None, confidence: float = 0.95) -> PowerLaw:
    """Fit log y = a + b log x, for instance tr F against the parameter count.

    Without ``log_error``: least squares, and a t interval of n - 2 degrees of freedom from the residuals (points are
    then seeds or sizes that scatter about a line for whatever reason). With it: weighted by 1 / error^2, and the
    interval is the wider of the errors' own and that from the residuals, so that neither too small errors nor a chance
    straight line make it too narrow.

    Args:
        x: (n,) positive sizes.
        y: (n,) positive values.
        log_error: (n,) standard errors of log y (error of y over y).
        confidence: of the interval.

    Returns:
        The fit.

    Raises:
        ValueError: fewer than two distinct sizes, or a number that is not positive.

    Example:
        >>> round(power_law(np.array([1.0, 10.0, 100.0]), np.array([2.0, 20.0, 200.0])).exponent, 6)
        1.0
    """
    check_confidence(confidence)
    u, v = _logs(x, "x"), _logs(y, "y")
    n = len(u)
    if u.shape != v.shape or len(np.unique(u)) < 2:
        raise ValueError(f"a power law needs two distinct sizes or more, one value each; got x={x!r}, y={y!r}.")
    weight = np.ones(n) if log_error is None else 1 / np.asarray(log_error, dtype=float) ** 2
    if not (np.isfinite(weight).all() and (weight > 0).all()):
        raise ValueError(f"log_error must be positive and finite; got {log_error!r}.")
    centre = (weight * u).sum() / weight.sum()
    spread = (weight * (u - centre) ** 2).sum()
    slope = (weight * (u - centre) * v).sum() / spread
    level = (weight * (v - slope * (u - centre))).sum() / weight.sum()
    residual = (weight * (v - level - slope * (u - centre)) ** 2).sum()
    half = np.nan
    if n > 2:
        half = float(t_quantile(n - 2, confidence)) * np.sqrt(residual / (n - 2) / spread)
    if log_error is not None:
        least = normal_quantile(confidence) / np.sqrt(spread)
        half = least if n == 2 else max(half, least)
    return PowerLaw(float(slope), float(slope - half), float(slope + half), float(np.exp(level - slope * centre)), n)


def flatness(y: Array, log_error: Array, confidence: float = 0.95) -> Flatness:
    """Is y the same for all sizes? For instance tr Cov(g^K) / tr F, which (16) says is.

    Args:
        y: (n,) positive values, measured independently.
        log_error: (n,) standard errors of log y.
        confidence: of the ratio's interval.

    Returns:
        The effect (largest over smallest) first, then the test.

    Raises:
        ValueError: fewer than two values, or a number that is not positive.

    Example:
        >>> test = flatness(np.array([1.0, 1.1, 3.0]), np.array([0.1, 0.1, 0.1]))
        >>> round(test.ratio, 1), test.p < 1e-6
        (3.0, True)
    """
    from scipy.special import chdtrc

    v = _logs(y, "y")
    error = np.asarray(log_error, dtype=float)
    if len(v) < 2 or error.shape != v.shape or not ((error > 0) & np.isfinite(error)).all():
        raise ValueError(
            f"flatness needs two values or more, with positive errors; got y={y!r}, log_error={log_error!r}."
        )
    weight = 1 / error**2
    mean = (weight * v).sum() / weight.sum()
    q = float((weight * (v - mean) ** 2).sum())
    top, bottom = int(np.argmax(v)), int(np.argmin(v))
    half = normal_quantile(confidence) * np.hypot(error[top], error[bottom])
    ratio = v[top] - v[bottom]
    return Flatness(
        float(np.exp(ratio)),
        float(np.exp(ratio - half)),
        float(np.exp(ratio + half)),
        q,
        float(chdtrc(len(v) - 1, q)),
        len(v),
    )


def _logs(x: Array, name: str) -> Array:
    values = np.asarray(x, dtype=float)
    if values.ndim != 1 or not ((values > 0) & np.isfinite(values)).all():
        raise ValueError(f"{name} must be positive, finite numbers in one axis; got {x!r}.")
    return np.log(values)
