"""An interval for the squared length of a mean, which may be nothing."""

from __future__ import annotations

import numpy as np

from kvar.intervals.jackknife import Array, Estimate, jackknife
from kvar.intervals.quantiles import t_quantile

__all__ = ["squared_length"]


def squared_length(statistic: Array, noise: Array, n: int, confidence: float = 0.95) -> Estimate:
    """Interval for |mu|^2 >= 0 from an unbiased estimate T = |xbar|^2 - noise, where mu may be 0.

    With k = noise / q dimensions of variance q each, |xbar|^2 / q has a noncentral chi-square law of k degrees of
    freedom and noncentrality |mu|^2 / q. q is such that its variance, 4 q |xbar|^2, is the jackknife's: the variance
    along mu where mu is long, about tr Sigma^2 / (n tr Sigma) where it is nothing and the first-order term of T
    vanishes (Satterthwaite 1946). There the jackknife alone excludes 0 too often, since its error is small where T is
    low. The law is inverted by sqrt(x - (k-1)/2) ~ N(sqrt(|mu|^2 / q + (k-1)/2), 1) (Sankaran 1963), with t in
    place of the normal quantile, exact for k = 1 and for long mu.

    Args:
        statistic: (1 + n, E): T with all units, then with each left out.
        noise: (E,) |xbar|^2 - T.
        n: number of units.
        confidence: of the interval.

    Returns:
        T with its interval, which reaches below 0 no further than T does.

    Example:
        >>> x = np.random.default_rng(0).standard_normal(50)
        >>> x += 0.02 - x.mean()  # so near 0 that T is nearly as low as it can be
        >>> pairs = lambda y: (y.sum() ** 2 - (y**2).sum()) / (len(y) * (len(y) - 1))
        >>> t = np.array([[pairs(x)], *([pairs(np.delete(x, u))] for u in range(50))])
        >>> bool(jackknife(t, 50, scale="root").high[0] < 0 < squared_length(t, -t[0], 50).high[0])
        True
    """
    plain = jackknife(statistic, n, confidence)
    value = plain.value
    t = float(t_quantile(n - 1, confidence))
    with np.errstate(all="ignore"):
        whole = value + noise
        q = np.where(whole > 0, ((plain.high - value) / t) ** 2 / (4 * whole), np.maximum(noise, 0.0))
        shift = (noise - q) / 2
        root, half = np.sqrt(np.maximum(whole - shift, 0.0)), t * np.sqrt(q)
        low, high = (np.where(x > 0, np.maximum(x**2 - shift, 0.0), 0.0) for x in (root - half, root + half))
    return Estimate(value, np.minimum(low, value), np.maximum(high, value), n, plain.replicates)
