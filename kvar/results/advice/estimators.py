"""Which estimator a budget should be spent on, each at its own best split into prompts and responses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from kvar.analysis.frames.reference import parsed
from kvar.analysis.signal import signal_of
from kvar.analysis.statistic_table import estimate
from kvar.analysis.step.best_k import competing
from kvar.analysis.step.efficiency import direction_from, efficiency_estimate, signed_square
from kvar.intervals import Interval, candidates, jackknife, mean_with_interval, probability_of_best, units_to_resolve
from kvar.intervals.jackknife import Array
from kvar.intervals.probability_of_best import probability_over_seeds
from kvar.results.advice.budget import Budget, Sums, joined

__all__ = ["Ranking", "Reason", "Row", "efficiency_at", "rank", "simplicity"]

Reason = Literal["best", "in use", "simplest", "fitted", "unresolved"]
"""Why an estimator is advised: it is the best; of those not told apart it is the one in use, or the simplest of enough
efficiency; a fit gains for certain; or nothing is told, and the one in use stays."""

ENOUGH = 0.5
"""The simplest is advised only where it has this share of the largest efficiency."""


@dataclass(frozen=True)
class Row:
    """One estimator with its best use of the budget.

    Attributes:
        name: of the estimator.
        rollouts: R; 0 where the budget buys no prompt with as many responses as it takes.
        prompts: M, not rounded.
        efficiency: (11') of that step, with its interval; NaN where the target is not resolved.
        chance: probability that it has the largest; NaN likewise.
    """

    name: str
    rollouts: int
    prompts: float
    efficiency: Interval
    chance: float = math.nan


@dataclass(frozen=True)
class Ranking:
    """The estimators beside each other.

    Attributes:
        rows: one a measured estimator that competes, in the order measured.
        leaders: those that are not told apart as the best, with their probabilities; one where the best is told.
        pick: name of the one that is advised.
        reason: why.
        best: name of the one with the largest efficiency; None where nothing is told.
        gains: estimator -> the efficiency of ``best`` less its own, paired.
        needed: units that would tell ``best`` from all others, were the differences seen the true ones.
        resolved: whether |g*|^2 of the target is told from zero.
    """

    rows: tuple[Row, ...]
    leaders: Mapping[str, float]
    pick: str
    reason: Reason
    best: str | None = None
    gains: Mapping[str, Interval] = field(default_factory=dict)
    needed: float = math.nan
    resolved: bool = False

    def __getitem__(self, name: str) -> Row:
        """The row of an estimator."""
        return next(row for row in self.rows if row.name == name)


def rank(sums: Sums, budget: Budget, reference: int, current: str | None) -> Ranking:
    """Rank the estimators for a budget, and choose.

    Args:
        sums: of the probes.
        budget: of one step.
        reference: number of the estimator that stands for g*.
        current: the estimator in use, where it is known.

    Raises:
        ValueError: the budget serves none of them.
    """
    names = sums.names
    numbers = [e for e, takes_part in enumerate(competing(names)) if takes_part]
    splits = {e: sums.best_split(e, budget) for e in numbers}
    bought = [e for e in numbers if splits[e]]
    if not bought:
        need = budget.prompt_cost + budget.length * max(2, min(sums.measured, _least(sums, numbers)))
        raise ValueError(
            f"tokens={budget.tokens:g} buys no prompt with the responses that the measured estimators take; give at "
            f"least {math.ceil(need)}."
        )
    resolved = all(estimate("signal", signal_of(data), data.units).low[reference] > 0 for data in sums.each)
    each = [_directions(sums, budget, reference, {e: splits[e] or 1 for e in bought}, i) for i in range(len(sums.each))]
    known = resolved and all(np.isfinite(x).all() for x in each)
    rows = {e: Row(names[e], splits[e] or 0, budget.prompts(splits[e] or 1), Interval(math.nan)) for e in numbers}
    fallback = (
        current if current in [names[e] for e in bought] else names[reference if reference in bought else bought[0]]
    )
    if not known:
        return Ranking(tuple(rows.values()), {}, str(fallback), "unresolved")
    along = _efficiencies(each)
    squares = joined(
        [signed_square(x) for x in each] if len(each) == 1 else [a.value[None] for a in map(efficiency_estimate, each)]
    )
    chances = (
        probability_of_best(squares, smallest=False)
        if len(each) == 1
        else probability_over_seeds(np.stack([efficiency_estimate(x).value for x in each]), smallest=False)
    )
    for i, e in enumerate(bought):
        rows[e] = Row(names[e], rows[e].rollouts, rows[e].prompts, along[i], float(chances[i]))
    shares = {names[e]: float(p) for e, p in zip(bought, chances, strict=True)}
    leaders = candidates(shares)
    values = {names[e]: rows[e].efficiency.value for e in bought}
    if not leaders:
        return Ranking(tuple(rows.values()), {}, str(fallback), "unresolved")
    best = max(leaders, key=values.__getitem__)
    top = names.index(best)
    pick, reason = _choice(leaders, values, current)
    gains = _gains(squares, bought.index(top), [names[e] for e in bought], sums.units)
    needed = units_to_resolve(squares, smallest=False)
    return Ranking(tuple(rows.values()), leaders, pick, reason, best, gains, needed, True)


def efficiency_at(sums: Sums, budget: Budget, reference: int, e: int, rollouts: int, factor: float = 1.0) -> Interval:
    """The efficiency of one estimator at a given R."""
    variances = sums.variance(e, budget, rollouts, factor)
    each = []
    for data, variance in zip(sums.each, variances, strict=True):
        noise = np.full((len(variance), len(sums.names)), np.nan)
        noise[:, e] = variance
        each.append(direction_from(data, reference, noise)[:, [e]])
    return _efficiencies(each)[0]


def simplicity(name: str) -> tuple[object, ...]:
    """Orders estimators by what they take, the least first.

    Names that are not kvar's come last; then count another forward pass for a baseline's score norms, sums over the
    vocabulary, a baseline, and words.

    >>> sorted(["K=4 - leave-one-out", "gap immediate exact", "K=4", "K=1"], key=simplicity)
    ['K=1', 'K=4', 'K=4 - leave-one-out', 'gap immediate exact']
    """
    estimator = parsed(name)
    if estimator is None:
        return (True, True, True, True, len(name), name)
    baseline = estimator.subtracted
    passes = baseline is not None and baseline.score_norms
    sums = estimator.immediate != "sampled" or estimator.future != "sampled"
    return (False, passes, sums, estimator.baseline is not None, len(name), name)


def _least(sums: Sums, numbers: list[int]) -> int:
    return min(2 if sums.dependence(e) == "leave-one-out" else sums.measured for e in numbers)


def _directions(sums: Sums, budget: Budget, reference: int, splits: Mapping[int, int], number: int) -> Array:
    """(1+U, those of ``splits``) of one probe."""
    data = sums.each[number]
    noise = np.full((data.units + 1, len(sums.names)), np.nan)
    for e, rollouts in splits.items():
        noise[:, e] = sums.variance(e, budget, rollouts, sums.within_factor(e, rollouts))[number]
    return direction_from(data, reference, noise)[:, list(splits)]


def _efficiencies(each: list[Array]) -> list[Interval]:
    """Of one probe by the jackknife, of several by the spread among them."""
    if len(each) == 1:
        along = efficiency_estimate(each[0])
        return [
            Interval(float(v), float(a), float(b), along.n)
            for v, a, b in zip(along.value, along.low, along.high, strict=True)
        ]
    values = np.stack([efficiency_estimate(x).value for x in each])
    return [Interval(*mean_with_interval(column), n=len(each)) for column in values.T]


def _choice(leaders: Mapping[str, float], values: Mapping[str, float], current: str | None) -> tuple[str, Reason]:
    if len(leaders) == 1:
        return next(iter(leaders)), "best"
    if current in leaders:
        return str(current), "in use"
    largest = max(values[name] for name in leaders)
    return min(
        (name for name in leaders if values[name] >= ENOUGH * largest),
        key=simplicity,
        default=max(leaders, key=values.__getitem__),
    ), "simplest"


def _gains(squares: Array, top: int, names: list[str], units: int) -> dict[str, Interval]:
    gain = jackknife(squares[:, [top]] - squares, units, correct=True)
    return {
        name: Interval(float(v), float(a), float(b), units)
        for i, (name, v, a, b) in enumerate(zip(names, gain.value, gain.low, gain.high, strict=True))
        if i != top
    }
