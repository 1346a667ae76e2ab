"""A4: did the instrument know? Rank correlations over methods of what is measured with what training comes to."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from figures.acting.cells import BATCH, LAST, Results
from figures.acting.measure import OWN

PREDICTORS = {
    "efficiency toward J": ("efficiency", "J"),
    "efficiency toward J_kl": ("efficiency", "J_kl"),
    "efficiency toward data": ("efficiency", "data"),
    "efficiency toward score": ("efficiency", "score"),
    "minus tr Cov": ("trace", ""),
    "minus norm of a step": ("norm", ""),
    "minus verl's W": ("proxy", ""),
}
"""Name -> statistic and target; all with the sign that more is better."""
RIVALS = ("minus tr Cov", "minus norm of a step", "minus verl's W")
GAINS = {"gain in J": ("J", "J"), "gain in greedy score": ("greedy", "greedy"), "gain in J_kl": ("J_kl", "J")}
"""Name -> quantity, and the outcome at whose rate it is read."""
PERMUTED = {
    "alone": "methods exchanged in each task and seed alone",
    "by task": "in all seeds of a task alike",
    "all alike": "in all alike",
}


@dataclass(frozen=True)
class Ranks:
    """Spearman's correlation over methods in each cell, a task and seed.

    Attributes:
        rho: one a cell.
        p: how methods are exchanged -> share of permutations, the identity among them, whose mean is at least as large.
        methods: how many methods are ranked.
    """

    rho: pd.Series
    p: dict[str, float]
    methods: int


def predictors(results: Results, step: int = 0) -> dict[str, pd.DataFrame]:
    """Name -> rows task and seed, columns methods: statistics of each method's own estimator.

    At the start all are measured on the same responses; later each on its own student's, at J's rate.
    """
    rows = results.gradients
    rows = rows[(rows["step"] == 0) & (rows["method"] == "start") if step == 0 else rows["step"] == step]

    def wide(statistic: str, target: str) -> pd.DataFrame:
        own = rows[(rows["statistic"] == statistic) & (rows["target"] == target)]
        columns = {}
        for method, estimator in OWN.items():
            one = own[own["estimator"] == estimator]
            if step:
                rate = one["task"].map({t: results.rates.get((t, method, "J"), np.nan) for t in results.tasks})
                one = one[(one["method"] == method) & (one["rate"] == rate)]
            columns[method] = one.set_index(["task", "seed"])["value"]
        return pd.DataFrame(columns)

    norm = np.sqrt((wide("signal", "") + wide("trace", "") / BATCH).clip(lower=0))
    return {
        name: norm * -1 if statistic == "norm" else wide(statistic, target) * (-1 if name.startswith("minus") else 1)
        for name, (statistic, target) in PREDICTORS.items()
    }


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


def ranked(x: pd.DataFrame, y: pd.DataFrame, draws: int = 5000) -> Ranks | None:
    """Correlations over the methods that both have, in the cells where none lacks a number; None without any."""
    if not len(x) or not len(y):
        return None
    methods = [m for m in y if m in x and x[m].notna().any() and y[m].notna().any()]
    both = x[methods].join(y[methods], lsuffix=" x", rsuffix=" y", how="inner")
    both = both[np.isfinite(both.to_numpy(dtype=float)).all(axis=1)]
    if len(methods) < 3 or not len(both):
        return None
    a, b = both.to_numpy(dtype=float)[:, : len(methods)], both.to_numpy(dtype=float)[:, len(methods) :]
    blocks: dict[str, Sequence[Hashable]] = {
        "alone": list(both.index),
        "by task": [task for task, _ in both.index],
        "all alike": ["all"] * len(both),
    }
    p = {name: permutation_p(a, b, labels, draws) for name, labels in blocks.items()}
    return Ranks(pd.Series(correlations(a, b), index=both.index), p, len(methods))


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


def permutation_p(x: np.ndarray, y: np.ndarray, blocks: Sequence[Hashable], draws: int = 5000, seed: int = 0) -> float:
    """One-sided p of a mean rank correlation at least so large, were methods exchanged at random.

    Args:
        x: (C, M) one row a cell.
        y: (C, M).
        blocks: C labels; the cells of a label have their methods exchanged in the same way.
        draws: random permutations; the identity is added to them.
        seed: of those.
    """
    a, b = standard_ranks(x), standard_ranks(y)
    observed = (a * b).sum() / len(a)
    rng = np.random.default_rng(seed)
    means = np.zeros(draws)
    for block in dict.fromkeys(blocks):
        own = [i for i, other in enumerate(blocks) if other == block]
        table = a[own].T @ b[own]  # [i, j]: sum over the block's cells of rank i of x times rank j of y
        order = rng.permuted(np.tile(np.arange(x.shape[1]), (draws, 1)), axis=1)
        means += table[np.arange(x.shape[1]), order].sum(axis=1) / len(a)
    return float((1 + (means >= observed - 1e-12).sum()) / (1 + draws))
