"""The advised split of a budget beside others, and what a larger step would buy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kvar.analysis.decompose import within_share_of
from kvar.analysis.statistic_table import TABLE
from kvar.analysis.step.efficiency import direction_of, efficiency_estimate, limit_interval
from kvar.analysis.step.split import Dependence, between_over_within, break_even
from kvar.intervals import Interval, jackknife
from kvar.intervals.jackknife import Array
from kvar.results.advice.budget import Budget, Sums, joined
from kvar.results.advice.estimators import efficiency_at

__all__ = ["Split", "SplitRow", "bias_limit", "snr_at", "split_of"]

_SHOWN = (1, 2, 4, 8)


@dataclass(frozen=True)
class SplitRow:
    """One way to spend the budget.

    Attributes:
        rollouts: R.
        prompts: M, not rounded.
        variance: of the step's mean over that of the advised split, paired. Where ``measured`` is False a value is not
            known, and low and high are the least and the most that it can be.
        efficiency: of the step with its interval, or likewise what it can be; NaN where the target is not resolved.
        measured: whether the measurement tells it: equation (10), or R of the measurement itself.
    """

    rollouts: int
    prompts: float
    variance: Interval
    efficiency: Interval
    measured: bool


@dataclass(frozen=True)
class Split:
    """Prompts x responses of one estimator.

    Attributes:
        rollouts: the advised R.
        prompts: M for it, not rounded.
        dependence: whether the variance within prompts depends on R.
        share: within / (within + between) as measured; None where one response a prompt was measured.
        ratio: between / within; None likewise.
        optimum: R* of (28), a real number; None likewise.
        break_even: tokens that a prompt costs beside its responses from which on two responses are better than one.
        rows: ways to spend the budget.
    """

    rollouts: int
    prompts: float
    dependence: Dependence
    share: Interval | None
    ratio: Interval | None
    optimum: Interval | None
    break_even: Interval | None
    rows: tuple[SplitRow, ...]


def split_of(sums: Sums, budget: Budget, e: int, rollouts: int, reference: int | None) -> Split:
    """The split of one estimator.

    Args:
        sums: of the probes.
        budget: of one step.
        e: number of the estimator.
        rollouts: the advised R.
        reference: number of the estimator that stands for g*; None where the target is not resolved.
    """
    prompts, kind = budget.prompts(rollouts), sums.dependence(e)
    allowed = sums.allowed(e, budget)
    shown = sorted({r for r in (*_SHOWN, rollouts, sums.measured) if r in allowed})
    rows = tuple(_row(sums, budget, e, r, rollouts, reference) for r in shown)
    if not sums.split:
        return Split(rollouts, prompts, kind, None, None, None, None, rows)
    ratio = sums.interval(between_over_within)[e]
    even = [budget.length * float(break_even(np.asarray(x))) for x in (ratio.value, ratio.low, ratio.high)]
    share = sums.interval(within_share_of)[e]
    return Split(
        rollouts,
        prompts,
        kind,
        share,
        ratio,
        sums.optimum(e, budget),
        Interval(even[0], even[1], even[2], ratio.n),
        rows,
    )


def snr_at(sums: Sums, budget: Budget, e: int, rollouts: int) -> Interval:
    """|E g|^2 over the variance of the step's mean, with its interval."""
    variances = sums.variance(e, budget, rollouts, sums.within_factor(e, rollouts))
    with np.errstate(all="ignore"):
        each = [signal[:, e] / noise for signal, noise in zip(sums.signal(), variances, strict=True)]
    return _interval(joined(each), sums.units, "snr")


def bias_limit(sums: Sums, e: int, reference: int) -> Interval:
    """The efficiency of an infinite step: what noise does not limit; 1 without bias."""
    limits = []
    for data in sums.each:
        est = efficiency_estimate(direction_of(data, reference, np.inf, 1), limit=limit_interval(data, reference))[e]
        limits.append(est)
    if len(limits) == 1:
        est = limits[0]
        return Interval(float(est.value), float(est.low), float(est.high), est.n)
    return _interval(joined([np.asarray([x.value]) for x in limits]), len(limits), "efficiency")


def _row(sums: Sums, budget: Budget, e: int, r: int, advised: int, reference: int | None) -> SplitRow:
    least = sums.variance(e, budget, advised, sums.within_factor(e, advised))
    measured = sums.dependence(e) == "none" or r == sums.measured
    factors = (1.0,) if measured else tuple(sorted({1.0, _factor(sums, r)}))
    ratios, along = [], []
    for factor in factors:
        noise = sums.variance(e, budget, r, factor)
        with np.errstate(all="ignore"):
            ratios.append(
                _interval(joined([x / y for x, y in zip(noise, least, strict=True)]), sums.units, "trace_ratio")
            )
        unknown = Interval(math.nan)
        along.append(unknown if reference is None else efficiency_at(sums, budget, reference, e, r, factor))
    if measured:
        return SplitRow(r, budget.prompts(r), ratios[0], along[0], True)
    variance, efficiency = (
        Interval(math.nan, min(x.value for x in xs), max(x.value for x in xs)) for xs in (ratios, along)
    )
    return SplitRow(r, budget.prompts(r), variance, efficiency, False)


def _factor(sums: Sums, r: int) -> float:
    """The other end of what leave-one-out's variance within prompts can be at R."""
    return (sums.measured - 1) / (r - 1)


def _interval(replicated: Array, units: int, name: str) -> Interval:
    scale = TABLE[name].scale
    assert scale is not None  # of statistics with an interval
    est = jackknife(replicated[:, None], units, scale=scale)
    return Interval(float(est.value[0]), float(est.low[0]), float(est.high[0]), units)
