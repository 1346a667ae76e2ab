"""Does one quantity order the estimators as another does: Spearman's correlation, over several seeds."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from math import factorial

import numpy as np

from kvar.intervals.jackknife import Array
from kvar.intervals.over_seeds import mean_with_interval

__all__ = ["RankCorrelation", "rank_correlation"]

_EXACT = 5040


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rank correlation across estimators, averaged over seeds.

    Attributes:
        rho: mean over seeds, between -1 and 1.
        low: lower end of its interval over seeds; NaN for one seed.
        high: upper end.
        p: chance of a mean at least so far from zero, were the estimators' names exchanged at random (the same way in
            every seed, so that what the seeds share counts once).
        seeds: S.
        estimators: E; p cannot fall below 2 / E!.
    """

    rho: float
    low: float
    high: float
    p: float
    seeds: int
    estimators: int


def rank_correlation(x: Array, y: Array, confidence: float = 0.95, draws: int = 5000, seed: int = 0) -> RankCorrelation:
    """Spearman's correlation of two quantities across estimators in every seed, its mean, interval and permutation p.

    Args:
        x: (S, E) one row a seed, for instance efficiencies at the start.
        y: (S, E) for instance how much the student gained.
        confidence: of the t interval over seeds, cut to [-1, 1].
        draws: permutations drawn where all E! are more than 5,040.
        seed: of those.

    Returns:
        The correlation; all NaN where a value is not finite, a row has no spread or there are fewer than three
        estimators.

    Raises:
        ValueError: not two tables of the same shape.

    Example:
        >>> x = np.array([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 4.0, 3.0]])
        >>> rank = rank_correlation(x, np.array([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]]))
        >>> round(rank.rho, 2), round(rank.p, 3)
        (0.9, 0.167)
    """
    x, y = np.atleast_2d(np.asarray(x, dtype=float)), np.atleast_2d(np.asarray(y, dtype=float))
    if x.ndim != 2 or x.shape != y.shape:
        raise ValueError(f"x and y must be (seeds, estimators) of one shape; got {x.shape} and {y.shape}.")
    seeds, size = x.shape
    unknown = RankCorrelation(np.nan, np.nan, np.nan, np.nan, seeds, size)
    if size < 3 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return unknown
    a, b = _standard_ranks(x), _standard_ranks(y)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return unknown
    single = (a * b).sum(axis=1)
    rho, low, high = mean_with_interval(single, confidence)
    orders = _orders(size, draws, seed)
    shuffled = np.einsum("se,spe->p", a, b[:, orders]) / seeds
    extreme = (np.abs(shuffled) >= abs(rho) - 1e-12).mean()
    return RankCorrelation(rho, max(low, -1.0), min(high, 1.0), float(extreme), seeds, size)


def _standard_ranks(values: Array) -> Array:
    """(S, E) ranks of each row, ties averaged, centred and of unit length; NaN where a row has no spread."""
    from scipy.stats import rankdata

    ranks = np.asarray(rankdata(values, axis=1), dtype=float)
    ranks -= ranks.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(ranks / np.sqrt((ranks**2).sum(axis=1, keepdims=True)))


def _orders(size: int, draws: int, seed: int) -> Array:
    """(P, E) all orders of E things where they are few, else the first and others drawn at random."""
    if factorial(size) <= _EXACT:
        return np.array(list(itertools.permutations(range(size))))
    rng = np.random.default_rng(seed)
    return np.stack([np.arange(size), *(rng.permutation(size) for _ in range(draws))])
