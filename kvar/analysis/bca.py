"""BCa bootstrap intervals for statistics of gradient moments (Efron 1987)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kvar.analysis.replicates import Replicates, Unit, replicates
from kvar.analysis.unit_sums import UnitSums, unit_sums
from kvar.gradients.moments import GradientMoments
from kvar.intervals.jackknife import Array, Estimate
from kvar.intervals.quantiles import check_confidence

__all__ = ["bca", "bootstrap_replicates"]

Statistic = Callable[[Replicates], Array]
"""Sums -> (B, E), as ``trace_of``, ``signal_of`` and their like are."""


def bca(
    moments: GradientMoments,
    statistic: Statistic,
    group: str = "all",
    unit: Unit = None,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Bias-corrected and accelerated interval: units are drawn with replacement, all estimators on the same draws.

    The interval's ends are quantiles of the draws at levels shifted by z0, the median bias, and a, the acceleration
    (from the jackknife); it follows a skewed distribution where a symmetric interval does not.

    Args:
        moments: of E estimators, with all fields.
        statistic: sums -> (B, E), for instance ``kvar.analysis.trace_covariance.trace_of``.
        group: parameter group.
        unit: "trajectory" or "prompt"; None: prompts where one has two rollouts or more.
        confidence: of the interval.
        draws: bootstrap draws.
        seed: of the draws.

    Returns:
        The statistic and its interval; ``replicates`` are the jackknife's.

    Raises:
        ValueError: fields="norms", too few units, or a confidence outside (0, 1).

    Example:
        >>> from kvar.analysis.exact import TokenMDP, moments_of
        >>> from kvar.analysis.trace_covariance import trace_of
        >>> from kvar.returns import KStep
        >>> mdp = TokenMDP(3, 3, seed=0)
        >>> rows = np.random.default_rng(0).choice(len(mdp.probabilities), 200, p=mdp.probabilities.numpy())
        >>> interval = bca(moments_of(mdp.gradients(KStep(2))[None, rows]), trace_of)
        >>> bool(interval.low[0] < interval.value[0] < interval.high[0])
        True
    """
    from scipy.special import ndtr, ndtri

    check_confidence(confidence)
    if unit is None:
        unit = "prompt" if len(moments.prompts) < len(moments.prompt_index) else "trajectory"
    left_out = replicates(moments, group, unit)
    sums = unit_sums(moments, group, unit == "prompt")
    replicated = statistic(left_out)
    value, left = replicated[0], replicated[1:]
    drawn = statistic(bootstrap_replicates(sums, draws, seed))
    with np.errstate(all="ignore"):
        below = ((drawn < value).sum(axis=0) + 0.5 * (drawn == value).sum(axis=0)) / draws
        z0 = ndtri(np.clip(below, 0.5 / draws, 1 - 0.5 / draws))
        influence = left.mean(axis=0) - left
        spread = (influence**2).sum(axis=0)
        a = np.where(spread > 0, (influence**3).sum(axis=0) / (6 * spread**1.5), 0.0)
        ends = []
        for level in ((1 - confidence) / 2, (1 + confidence) / 2):
            z = z0 + ndtri(level)
            shifted = ndtr(z0 + z / (1 - a * z))
            ends.append(
                np.array(
                    [
                        np.quantile(drawn[:, e], q) if np.isfinite(drawn[:, e]).all() and np.isfinite(q) else np.nan
                        for e, q in enumerate(shifted)
                    ]
                )
            )
    return Estimate(value, ends[0], ends[1], len(sums.size), left)


def bootstrap_replicates(sums: UnitSums, draws: int, seed: int) -> Replicates:
    """Sums of bootstrap draws; like :class:`Replicates`, whose first axis is here B draws.

    Unit u counts c_u times, c multinomial, d = c - 1 adding up to 0. With D_u = G_u - S/U,

        |sum_u c_u G_u|^2 = |S|^2 + 2 sum_u d_u <G_u, S> + sum_u d_u^2 |D_u|^2 + sum_{u != v} d_u d_v <D_u, D_v>

    Products of distinct units' gradients are not recorded one by one, so the last sum is replaced by its mean over
    draws, sum_u |D_u|^2 / U. What is lost is of order 1/sqrt(U) beside the rest, unless the signal is lost in noise
    (|E g|^2 well below tr Cov / N): intervals of ``signal`` are too narrow there. A unit with itself counts as no pair.
    """
    u = len(sums.size)
    counts = np.random.default_rng(seed).multinomial(u, np.full(u, 1 / u), size=draws).astype(float)
    d = counts - 1
    deviation = sums.same - sums.with_total / u + sums.total / u**2
    same = _weighted(counts**2, sums.same)
    inner = None
    if sums.inner is not None:
        with np.errstate(all="ignore"):
            inner = _weighted(counts, sums.inner) / _weighted(counts, sums.inner_size)
    return Replicates(
        names=sums.names,
        units=u,
        n=counts @ sums.size,
        shared=_weighted(counts, sums.shared),
        square=_weighted(counts, sums.square),
        total=sums.total + _weighted(d, sums.with_total) + _weighted(d**2, deviation) + deviation.mean(axis=0),
        same=same,
        same_n=_weighted(counts**2, sums.size[:, :, None] * sums.size[:, None, :]),
        inner=inner,
    )


def _weighted(counts: Array, parts: Array) -> Array:
    """(B, U), (U, E, E) -> (B, E, E)."""
    return np.asarray((counts @ parts.reshape(len(parts), -1)).reshape(len(counts), *parts.shape[1:]))
