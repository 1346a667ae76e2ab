"""How often each estimator would come out best, were the units drawn again."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from kvar.intervals.jackknife import Array

__all__ = ["SURE", "candidates", "probability_of_best", "probability_over_seeds", "units_to_resolve"]

SURE = 0.95
"""The one rule for "resolved": an estimator is the best where its probability to be so is at least this."""


def candidates(chances: Mapping[str, float], sure: float = SURE) -> dict[str, float]:
    """The fewest estimators that hold the best with probability ``sure``: those that cannot be told apart.

    Args:
        chances: estimator -> probability to be the best, as the functions below give them.
        sure: the probability; alone above it, an estimator is resolved as the best.

    Returns:
        Estimator -> probability, the likeliest first: one where the best is resolved, several where it is not, none
        where no probability is known. Estimators of unknown probability (NaN) do not take part.

    Example:
        >>> candidates({"K=1": 0.02, "K=4": 0.97, "K=8": 0.01})
        {'K=4': 0.97}
        >>> candidates({"K=1": 0.3, "K=4": 0.66, "K=8": 0.04})
        {'K=4': 0.66, 'K=1': 0.3}
    """
    told: dict[str, float] = {}
    for name in sorted((name for name in chances if np.isfinite(chances[name])), key=lambda name: -chances[name]):
        if sum(told.values()) < sure - 1e-9:
            told[name] = float(chances[name])
    return told


def probability_of_best(statistic: Array, smallest: bool, draws: int = 4000, seed: int = 0) -> Array:
    """Share of bootstrap draws in which each estimator has the smallest (or largest) value.

    Units are drawn with replacement; the statistic of a draw is taken to first order from its delete-one replicates:
    theta* = theta + (1/U) sum_u count_u (U-1)(mean - theta_-u), scaled to the jackknife's variance.

    Args:
        statistic: (1 + U, E): with all units, then with each left out.
        smallest: whether the best is the smallest.
        draws: how many.
        seed: of the draws.

    Returns:
        (E,) shares, adding up to 1; ties are shared. NaN for estimators with a value that is not finite, which do not
        take part.

    Example:
        >>> probability_of_best(np.array([[1.0, 9.0], [1.1, 9.1], [0.9, 8.9]]), smallest=True).tolist()
        [1.0, 0.0]
    """
    theta, replicates = statistic[0], statistic[1:]
    units = len(replicates)
    if units < 2:
        return np.full_like(theta, np.nan)
    influence = (units - 1) * (replicates.mean(axis=0) - replicates)
    drawn = theta + _counts(units, draws, seed) @ influence / units * np.sqrt(units / (units - 1))
    return _shares(drawn, smallest, statistic)


def probability_over_seeds(values: Array, smallest: bool, draws: int = 4000, seed: int = 0) -> Array:
    """Probability of each estimator to have the smallest (or largest) mean over independent runs.

    Draws are of a multivariate t with S - 1 degrees of freedom about the mean of the runs, with their covariance over
    S, so that kernels stay paired and sampling noise within runs counts through the spread among them.

    Args:
        values: (S, E), one row a run.
        smallest: whether the best is the smallest.
        draws: how many.
        seed: of the draws.

    Returns:
        (E,) shares, adding up to 1; ties are shared. NaN throughout for one run, and for estimators with a value that
        is not finite, which do not take part.

    Example:
        >>> probability_over_seeds(np.array([[1.0, 9.0], [1.1, 9.2], [0.9, 8.9]]), smallest=True).round(2).tolist()
        [1.0, 0.0]
    """
    runs = len(values)
    if runs < 2:
        return np.full(values.shape[1], np.nan)
    rng = np.random.default_rng(seed)
    mean = values.mean(axis=0)
    scale = np.sqrt((runs - 1) / rng.chisquare(runs - 1, size=(draws, 1)) / (runs * (runs - 1)))
    drawn = mean + scale * (rng.standard_normal((draws, runs)) @ (values - mean))
    return _shares(drawn, smallest, values)


def units_to_resolve(statistic: Array, smallest: bool, probability: float = 0.95) -> float:
    """How many units would tell the winner from every other estimator, were the present differences the true ones.

    Each difference's standard error, the jackknife's, falls as one over the root of the units; the answer is where the
    difference that is hardest to tell is z(probability) standard errors wide.

    Args:
        statistic: (1 + U, E): with all units, then with each left out.
        smallest: whether the winner is the smallest.
        probability: that each single comparison should have.

    Returns:
        A number of units, infinity where another estimator ties with the winner but for noise; of the estimators whose
        values are all finite. NaN where there is none, or with fewer than two units.

    Example:
        >>> round(units_to_resolve(np.array([[1.0, 2.0], [1.5, 2.0], [0.5, 2.0]]), smallest=True), 2)
        1.35
    """
    from scipy.special import ndtri

    units, statistic = len(statistic) - 1, statistic[:, np.isfinite(statistic).all(axis=0)]
    if units < 2 or not statistic.size:
        return np.nan
    winner = int(np.argmin(statistic[0]) if smallest else np.argmax(statistic[0]))
    rivals = np.delete(statistic, winner, axis=1) - statistic[:, [winner]]
    error = np.sqrt((units - 1) / units * ((rivals[1:] - rivals[1:].mean(axis=0)) ** 2).sum(axis=0))
    told = error > 1e-12 * np.abs(statistic[0]).max()  # estimators that are the same ones tie whatever is drawn
    if not told.any():
        return 2.0
    with np.errstate(divide="ignore"):
        return float(np.max(units * (float(ndtri(probability)) * error[told] / rivals[0][told]) ** 2))


def _shares(drawn: Array, smallest: bool, values: Array) -> Array:
    """(E,) share of the draws (D, E) that each wins; NaN where the values (., E) are not all finite."""
    known = np.asarray(np.isfinite(values).all(axis=0))
    shares = np.full(len(known), np.nan)
    drawn = drawn[:, known]
    if not known.any():
        return shares
    best = drawn.min(axis=1, keepdims=True) if smallest else drawn.max(axis=1, keepdims=True)
    wins = np.isclose(drawn, best, rtol=1e-12, atol=0.0)
    shares[known] = (wins / wins.sum(axis=1, keepdims=True)).mean(axis=0)
    return shares


@lru_cache(maxsize=2)
def _counts(units: int, draws: int, seed: int) -> Array:
    """(draws, U) how often each unit is drawn; a study asks for the same draws at every step and for both criteria."""
    return np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=draws).astype(float)
