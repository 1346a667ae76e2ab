"""How often each estimator would come out best, were the units drawn again."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from kvar.analysis.estimate import Array

__all__ = ["probability_of_best"]


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
        (E,) shares, adding up to 1; ties are shared. NaN throughout if any value is not finite.

    Example:
        >>> probability_of_best(np.array([[1.0, 9.0], [1.1, 9.1], [0.9, 8.9]]), smallest=True).tolist()
        [1.0, 0.0]
    """
    theta, replicates = statistic[0], statistic[1:]
    units = len(replicates)
    if units < 2 or not np.isfinite(statistic).all():
        return np.full_like(theta, np.nan)
    influence = (units - 1) * (replicates.mean(axis=0) - replicates)
    drawn = theta + _counts(units, draws, seed) @ influence / units * np.sqrt(units / (units - 1))
    best = drawn.min(axis=1, keepdims=True) if smallest else drawn.max(axis=1, keepdims=True)
    wins = np.isclose(drawn, best, rtol=1e-12, atol=0.0)
    return np.asarray((wins / wins.sum(axis=1, keepdims=True)).mean(axis=0))


@lru_cache(maxsize=2)
def _counts(units: int, draws: int, seed: int) -> Array:
    """(draws, U) how often each unit is drawn; a study asks for the same draws at every step and for both criteria."""
    return np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=draws).astype(float)
