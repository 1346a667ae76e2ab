"""How many steps it takes until bias outweighs noise: when the least biased estimator points better; theory.md (30)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kvar.analysis.frames.reference import objective_of
from kvar.analysis.step.overtakes import crossing, lead_of
from kvar.intervals import Interval
from kvar.intervals.jackknife import pseudo_values
from kvar.results.advice.budget import Budget, Sums
from kvar.results.advice.estimators import Ranking
from kvar.results.advice.splits import bias_limit

__all__ = ["Overtaking", "overtaking"]


@dataclass(frozen=True)
class Overtaking:
    """An estimator of less bias than the advised one, and when it points better.

    Attributes:
        name: of the least biased estimator.
        steps: the number of steps of the budget beyond whose mean it points better, as a real number with its interval;
            0 where it does at any number, inf at none, see :func:`kvar.analysis.overtakes`.
    """

    name: str
    steps: Interval


def overtaking(
    sums: Sums, budget: Budget, advised: tuple[int, int], ranking: Ranking, reference: int
) -> Overtaking | None:
    """The least biased of the ranked estimators, each at its own best split, against the advised one.

    Those that are unbiased by their form for the target's objective are the least biased, the one of largest efficiency
    among them taken; where there is none, the one of largest efficiency without noise. Of several seeds the line that
    (30) is the root of is the mean of theirs, with the interval of the spread among them. The weights of a fitted
    kernel count as given.

    Args:
        sums: of the probes.
        budget: of one step.
        advised: number of the advised estimator and its R.
        ranking: of the estimators, the target being resolved.
        reference: number of the estimator that stands for g*.

    Returns:
        None where the advised estimator is itself the least biased, or the interval tells nothing.
    """
    e, rollouts = advised
    target = objective_of(sums.names[reference])

    def unbiased(name: str) -> bool:
        return name == sums.names[reference] or (target is not None and objective_of(name) == target)

    if unbiased(sums.names[e]):
        return None
    rows = {row.name: row for row in ranking.rows if row.rollouts and row.name != sums.names[e]}
    efficiencies = {name: row.efficiency.value for name, row in rows.items() if unbiased(name)}
    limits = efficiencies or {name: bias_limit(sums, sums.names.index(name), reference).value for name in rows}
    if not limits:
        return None
    name = max(limits, key=lambda n: np.nan_to_num(limits[n], nan=-np.inf))
    if not efficiencies and not limits[name] > bias_limit(sums, e, reference).value:
        return None
    other, one = sums.names.index(name), replace(budget, steps=1)
    ways = ((other, rows[name].rollouts), (e, rollouts))
    variances = [sums.variance(i, one, r, sums.within_factor(i, r)) for i, r in ways]
    each = [
        lead_of(data, reference, (other, e), pair)
        for data, pair in zip(sums.each, zip(*variances, strict=True), strict=True)
    ]
    parts = [pseudo_values(lead) for lead in each]
    steps = crossing(parts[0] if len(parts) == 1 else np.stack([part.mean(axis=0) for part in parts]))
    told = steps.known and (steps.low > 0 or np.isfinite(steps.high)) and np.isfinite(steps.low)
    return Overtaking(name, steps) if told else None
