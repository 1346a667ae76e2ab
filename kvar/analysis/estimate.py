"""An estimate with its interval, from delete-one replicates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Estimate", "jackknife"]

Array = NDArray[np.float64]


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
    statistic: Array, n: int, confidence: float = 0.95, log: bool = False, correct: bool = False
) -> Estimate:
    """Delete-one jackknife with a t interval of n - 1 degrees of freedom; theory.md (13).

    The standard error is sqrt((n-1)/n sum_u (theta_-u - mean)^2).

    Args:
        statistic: (1 + n, E): with all units, then with each left out; (1, E) gives values without an interval.
        n: number of units.
        confidence: of the interval.
        log: form the interval for the logarithm where every replicate is positive. It suits ratios and variances, whose
            errors are skewed to the right.
        correct: report n theta - (n-1) mean_u theta_-u, free of bias of order 1/n, instead of theta.

    Returns:
        The estimate.

    Raises:
        ValueError: a confidence outside (0, 1).

    Example:
        >>> x = np.array([1.0, 2.0, 4.0])
        >>> means = np.array([[x.mean()], [3.0], [2.5], [1.5]])
        >>> found = jackknife(means, 3)
        >>> bool(np.isclose(found.high - found.value, 4.303 * x.std(ddof=1) / 3**0.5, rtol=1e-3)[0])
        True
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1; got {confidence!r}. Use 0.95 for a 95 % interval.")
    value, replicates = statistic[0], statistic[1:]
    if not len(replicates):
        return Estimate(value, np.full_like(value, np.nan), np.full_like(value, np.nan), n)
    from scipy.stats import t

    with np.errstate(all="ignore"):
        if correct:
            value = n * value - (n - 1) * replicates.mean(axis=0)
        quantile = float(t.ppf(0.5 + confidence / 2, n - 1)) if n > 1 else np.nan
        half = quantile * _spread(replicates, n)
        low, high = value - half, value + half
        if log:
            positive = (value > 0) & (replicates > 0).all(axis=0)
            factor = np.exp(quantile * _spread(np.log(np.where(positive, replicates, 1.0)), n))
            low, high = np.where(positive, value / factor, low), np.where(positive, value * factor, high)
    return Estimate(value, low, high, n, replicates)


def _spread(replicates: Array, n: int) -> Array:
    """(E,) jackknife standard errors."""
    deviation = replicates - replicates.mean(axis=0)
    return np.asarray(np.sqrt((n - 1) / n * (deviation**2).sum(axis=0)))
