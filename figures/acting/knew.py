"""A4: did the instrument know? Rank correlations over methods of what is measured with what training comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from figures.acting.cells import BATCH, LAST, Results
from figures.acting.measure import OWN, TUNING_SEED

PREDICTORS = {
    "efficiency toward J": ("efficiency", "J"),
    "efficiency toward J, whole run": ("efficiency of the run", "J"),
    "efficiency toward J_kl": ("efficiency", "J_kl"),
    "efficiency toward data": ("efficiency", "data"),
    "efficiency toward score": ("efficiency", "score"),
    "minus tr Cov": ("trace", ""),
    "minus norm of a step": ("norm", ""),
    "minus verl's W": ("proxy", ""),
}
"""Name -> statistic and target; all with the sign that more is better. The efficiency of the run is that of the mean of
its B = 16 x 150 responses, c^2 / (1 + rv / B): c^2 = eta(16) (1 + rv / 16), rv the relative variance."""
RIVALS = ("minus tr Cov", "minus norm of a step", "minus verl's W")
GAINS = {
    "gain in J": ("J", "J"),
    "gain in greedy score": ("greedy", "greedy"),
    "gain in J_kl": ("J_kl", "J"),
    "gain in J at the score's rate": ("J", "greedy"),
}
"""Name -> quantity, and the outcome at whose rate it is read."""
PERMUTED = {
    "alone": "methods exchanged in each task and seed alone",
    "by task": "in all seeds of a task alike",
    "alike": "in all tasks alike",
}
UNREAD = {("summarisation", 5)}
"""Cells that were not run when A4' was stated."""


@dataclass(frozen=True)
class Ranks:
    """Spearman's correlation over methods in each cell, a task and seed.

    Attributes:
        rho: one a cell. Cells of a task share methods, prompts and teacher, so that they are no independent draws.
        p: how methods are exchanged -> share of permutations, the identity among them, whose mean is at least as large.
        methods: how many methods are ranked, by task.
    """

    rho: pd.Series
    p: dict[str, float]
    methods: str


def predictors(results: Results, step: int = 0, by: str = "J") -> dict[str, pd.DataFrame]:
    """Name -> rows task and seed, columns methods: statistics of each method's own estimator.

    At the start all are measured on the same responses; later each on its own student's, at the rate for ``by``.
    """
    rows = results.gradients
    rows = rows[(rows["step"] == 0) & (rows["method"] == "start") if step == 0 else rows["step"] == step]

    def wide(statistic: str, target: str) -> pd.DataFrame:
        own = rows[(rows["statistic"] == statistic) & (rows["target"] == target)]
        columns = {}
        for method, estimator in OWN.items():
            one = own[own["estimator"] == estimator]
            if step:
                rate = one["task"].map({t: results.rates.get((t, method, by), np.nan) for t in results.tasks})
                one = one[(one["method"] == method) & (one["rate"] == rate)]
            columns[method] = one.set_index(["task", "seed"])["value"]
        return pd.DataFrame(columns)

    cosine, rv = limits(wide("efficiency", "J"), wide("relative_variance", ""))
    formed = {
        "norm": np.sqrt((wide("signal", "") + wide("trace", "") / BATCH).clip(lower=0)),
        "efficiency of the run": cosine / (1 + rv / (BATCH * LAST)),
    }
    return {
        name: (formed[statistic] if statistic in formed else wide(statistic, target))
        * (-1 if name.startswith("minus") else 1)
        for name, (statistic, target) in PREDICTORS.items()
    }


def limits(efficiency: pd.DataFrame, variance: pd.DataFrame, cut: float = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Squared cosine to the target without noise, with its sign, and relative variance, from a step's efficiency.

    An estimate of the squared cosine may be larger than 1, and is cut there.
    """
    rv = variance.clip(lower=0)
    return (efficiency * (1 + rv / BATCH)).clip(-cut, cut), rv


def overtaken(results: Results, estimator: str, by: str = "K=1", cut: float = 1) -> pd.Series:
    """(task, seed) -> steps of 16 responses up to which an estimator points better at J than another, by (30).

    At the start. 0 where it never does; infinite where it is the less biased one and better at every number.
    """
    rows = results.gradients
    rows = rows[(rows["step"] == 0) & (rows["method"] == "start") & rows["target"].isin(["", "J"])]
    of = rows.pivot_table(index=["task", "seed"], columns=["statistic", "estimator"], values="value")
    cosine, rv = limits(of["efficiency"], of["relative_variance"], cut)
    bias, noise = cosine[by] - cosine[estimator], cosine[estimator] * rv[by] - cosine[by] * rv[estimator]
    steps = (noise / bias / BATCH).where(bias > 0, np.inf)
    return steps.where(noise > 0, 0.0)


def gains(results: Results, quantity: str, by: str, since: int = 0) -> pd.DataFrame:
    """Rows task and seed, columns methods: the change of a quantity from a step to the last."""
    columns: dict[str, dict[tuple[str, int], float]] = {}
    for method in OWN:
        for task in results.tasks:
            curve = results.curves(task, method, quantity, by)
            if LAST in curve and since in curve:
                columns.setdefault(method, {}).update(
                    {(task, int(seed)): value for seed, value in (curve[LAST] - curve[since]).items()}
                )
    frame = pd.DataFrame({method: pd.Series(values) for method, values in columns.items()})
    frame.index = frame.index.set_names(["task", "seed"]) if len(frame) else frame.index
    return frame


def tuning_gains(results: Results, quantity: str, by: str, since: int = 0) -> pd.DataFrame:
    """As :func:`gains` from the start, of the tuning seed, whose rates were chosen by the best of these gains."""
    points = results.points[results.points["seed"] == TUNING_SEED]
    start = points[points["method"] == "start"].set_index("task")[quantity]
    rows = {
        (task, TUNING_SEED): {
            method: own[quantity].iloc[0] - start.get(task, np.nan)
            for method in OWN
            if len(own := points[_at(points, task, method, results.rates.get((task, method, by), np.nan))])
        }
        for task in results.tasks
    }
    frame = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=list(OWN)).dropna(axis=1, how="all")
    frame.index = pd.MultiIndex.from_tuples(list(rows), names=["task", "seed"])
    return frame


def _at(points: pd.DataFrame, task: str, method: str, rate: float) -> pd.Series:
    return (points["task"] == task) & (points["method"] == method) & (points["rate"] == rate) & (points["step"] == LAST)


def ranked(x: pd.DataFrame, y: pd.DataFrame, draws: int = 5000) -> Ranks | None:
    """Correlations over the methods that a task has in both, in its cells where none lacks a number; None without any.

    Tasks may have run different methods. A method that is missing in two cells more than another is left out.
    """
    if not len(x) or not len(y):
        return None
    rho, alone, by_task, counts = [], [], [], []
    kept: list[list[str]] = []
    for task in dict.fromkeys(task for task, _ in y.index):
        own_x, own_y = (frame[[t == task for t, _ in frame.index]] for frame in (x, y))
        cells = own_x.index.intersection(own_y.index)
        there = {m: int((own_x[m].notna() & own_y[m].notna())[cells].sum()) for m in y if m in x}
        methods = [m for m, n in there.items() if n >= max(*there.values(), 2) - 1]
        a, b = (frame.loc[cells, methods].to_numpy(dtype=float) for frame in (own_x, own_y))
        whole = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1)
        if len(methods) < 3 or not whole.any():
            continue
        a, b = a[whole], b[whole]
        rho.append(pd.Series(correlations(a, b), index=cells[whole]))
        alone += [(a[i : i + 1], b[i : i + 1]) for i in range(len(a))]
        by_task.append((a, b))
        kept.append(methods)
        counts.append(str(len(methods)))
    if not rho:
        return None
    p = {"alone": permutation_p(alone, draws), "by task": permutation_p(by_task, draws)}
    if all(methods == kept[0] for methods in kept):
        a, b = (np.concatenate(parts) for parts in zip(*by_task, strict=True))
        p["alike"] = permutation_p([(a, b)], draws)
    return Ranks(pd.concat(rho), p, " / ".join(dict.fromkeys(counts)))


def standard_ranks(values: np.ndarray) -> np.ndarray:
    """(C, M) ranks within each row, ties averaged, centred and of unit length; zeros where a row has no spread."""
    from scipy.stats import rankdata

    ranks = np.asarray(rankdata(values, axis=1), dtype=float)
    ranks -= ranks.mean(axis=1, keepdims=True)
    length = np.sqrt((ranks**2).sum(axis=1, keepdims=True))
    return np.divide(ranks, length, out=np.zeros_like(ranks), where=length > 0)


def correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(C,) Spearman's correlation over the M columns in each of C rows; 0 where one has no spread.

    >>> correlations(np.array([[1.0, 2.0, 3.0]]), np.array([[10.0, 30.0, 20.0]])).round(6).tolist()
    [0.5]
    """
    return np.asarray((standard_ranks(x) * standard_ranks(y)).sum(axis=1))


def permutation_p(blocks: Sequence[tuple[np.ndarray, np.ndarray]], draws: int = 5000, seed: int = 0) -> float:
    """One-sided p of a mean rank correlation at least so large, were methods exchanged at random.

    Args:
        blocks: each x and y, (C, M) of C cells and M methods, which are exchanged in the same way in all C.
        draws: random permutations; the identity is added to them.
        seed: of those.
    """
    rng = np.random.default_rng(seed)
    observed, sums = 0.0, np.zeros(draws)
    for x, y in blocks:
        table = standard_ranks(x).T @ standard_ranks(y)  # [i, j]: sum over cells of rank i of x times rank j of y
        every = np.arange(len(table))
        order = rng.permuted(np.tile(every, (draws, 1)), axis=1)
        observed += float(np.trace(table))
        sums += table[every, order].sum(axis=1)
    return float((1 + (sums >= observed - 1e-9).sum()) / (1 + draws))
