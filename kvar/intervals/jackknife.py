"""An estimate with its interval, from delete-one replicates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvar.intervals.quantiles import check_confidence, t_quantile

__all__ = ["NEAR_ONE", "Array", "Estimate", "Scale", "jackknife", "pseudo_values", "signed_root"]

Array: TypeAlias = NDArray[np.float64]
Scale: TypeAlias = Literal["plain", "log", "root", "cosine"]

NEAR_ONE = 0.999
"""Numbers beyond it are cut to it on the scale "cosine"."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """A statistic of E estimators with an interval.

    Attributes:
        value: (E,) point estimates.
        low: (E,) lower ends of the interval; NaN where the data allow a value but no interval.
        high: (E,) upper ends.
        n: how many independent units (trajectories or prompts) the interval rests on.
        replicates: (n, E) the same statistic with one unit left out, or None; differences and ratios are paired by it.
    """

    value: Array
    low: Array
    high: Array
    n: int
    replicates: Array | None = field(default=None, repr=False)

    def __getitem__(self, e: Any) -> Estimate:
        """The same estimate of one estimator, or of some."""
        replicates = None if self.replicates is None else self.replicates[..., e]
        return Estimate(self.value[e], self.low[e], self.high[e], self.n, replicates)


def jackknife(
    statistic: Array, n: int, confidence: float = 0.95, scale: Scale = "plain", correct: bool = False
) -> Estimate:
    """Delete-one jackknife with a t interval of n - 1 degrees of freedom; theory.md (13).

    The standard error is sqrt((n-1)/n sum_u (theta_-u - mean)^2), of the statistic on the scale named.

    Args:
        statistic: (1 + n, E): with all units, then with each left out; (1, E) gives values without an interval.
        n: number of units.
        confidence: of the interval.
        scale: on which the interval is symmetric. Sums of squares have errors skewed to the right: "log" suits ratios
            and variances (plain where a replicate is not positive), "root", sign(x) sqrt|x|, what may be negative.
            "cosine" is arctanh, for numbers in [-1, 1].
        correct: report n theta - (n-1) mean_u theta_-u, free of bias of order 1/n, instead of theta.

    Returns:
        The estimate.

    Raises:
        ValueError: a confidence outside (0, 1).

    Example:
        >>> x = np.array([1.0, 2.0, 4.0])
        >>> means = np.array([[x.mean()], [3.0], [2.5], [1.5]])
        >>> mean = jackknife(means, 3)
        >>> bool(np.isclose(mean.high - mean.value, 4.303 * x.std(ddof=1) / 3**0.5, rtol=1e-3)[0])
        True
    """
    check_confidence(confidence)
    value, replicates = statistic[0], statistic[1:]
    if not len(replicates):
        return Estimate(value, np.full_like(value, np.nan), np.full_like(value, np.nan), n)
    with np.errstate(all="ignore"):
        if correct:
            value = n * value - (n - 1) * replicates.mean(axis=0)
        quantile = float(t_quantile(n - 1, confidence))
        low, high = _interval(value, replicates, quantile, n, "plain" if scale == "log" else scale)
        if scale == "log":
            positive = (value > 0) & (replicates > 0).all(axis=0)
            kept = np.where(positive, value, 1.0), np.where(positive, replicates, 1.0)
            better = _interval(*kept, quantile, n, "log")
            low, high = np.where(positive, better[0], low), np.where(positive, better[1], high)
    return Estimate(value, low, high, n, replicates)


def pseudo_values(statistic: Array) -> Array:
    """(U, ...) U theta - (U-1) theta_-u of (1+U, ...) replicates: each unit's part in a statistic.

    Their mean is theta without its bias of order 1/U, their variance over U the jackknife's.

    >>> pseudo_values(np.array([[7 / 3], [3.0], [2.5], [1.5]])).round(9).tolist()  # the mean of 1, 2 and 4
    [[1.0], [2.0], [4.0]]
    """
    units = len(statistic) - 1
    return np.asarray(units * statistic[0] - (units - 1) * statistic[1:])


def signed_root(x: Array) -> Array:
    """sign(x) sqrt|x|: the size of what an unbiased estimate of a square may make negative by chance.

    >>> signed_root(np.array([0.04, 0.0, -0.01])).round(3).tolist()
    [0.2, 0.0, -0.1]
    """
    return np.asarray(np.sign(x) * np.sqrt(np.abs(x)))


_SCALES: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "plain": (lambda x: x, lambda x: x),
    "log": (np.log, np.exp),
    "root": (signed_root, lambda x: np.sign(x) * x**2),
    "cosine": (lambda x: np.arctanh(np.clip(x, -NEAR_ONE, NEAR_ONE)), np.tanh),
}


def _interval(value: Array, replicates: Array, quantile: float, n: int, scale: str) -> tuple[Array, Array]:
    forth, back = _SCALES[scale]
    half = quantile * _spread(forth(replicates), n)
    return back(forth(value) - half), back(forth(value) + half)


def _spread(replicates: Array, n: int) -> Array:
    """(E,) jackknife standard errors."""
    deviation = replicates - replicates.mean(axis=0)
    return np.asarray(np.sqrt((n - 1) / n * (deviation**2).sum(axis=0)))
