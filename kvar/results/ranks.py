"""Whether methods with less noisy gradients made better students: rank correlations, by task and student."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kvar.analysis.statistic_table import TABLE
from kvar.intervals.over_seeds import mean_with_interval
from kvar.intervals.rank_correlation import rank_correlation
from kvar.results.compare import LOWER_IS_BETTER

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["NOISE", "gains", "rank_table"]

NOISE = ("trace", "snr", "efficiency")
"""Statistics of the estimator at the start. The signal-to-noise ratio orders as the relative variance does, upside
down, and stays in order where a signal was estimated below zero."""


def gains(
    outcomes: pd.DataFrame,
    values: pd.DataFrame,
    metrics: dict[str, str],
    start: str = "start",
    statistic: str = "trace",
) -> pd.DataFrame:
    """What each seed's student gained over its start, beside a statistic of the estimator it was trained with.

    Args:
        outcomes: of ``StudyValues``.
        values: of ``kvar.results.trained_estimators.estimator_values``.
        metrics: task -> its main metric.
        start: the method that others start from.
        statistic: a column of ``values``, taken at the start.

    Returns:
        task, student, method, seed, outcome ("J" or the metric), x (the statistic) and y (the gain; of J, the fall of
        the mean total gap of sampled responses), for every method with both.
    """
    import pandas as pd

    rows = []
    for task, metric in metrics.items():
        for outcome, name in (("J", "total_gap"), (metric, metric)):
            scores = outcomes[(outcomes["task"] == task) & (outcomes["outcome"] == name)]
            table: dict[Any, float] = scores.set_index(["student", "method", "seed"])["value"].to_dict()
            sign = -1.0 if name in LOWER_IS_BETTER else 1.0
            part = values[(values["task"] == task) & (values["when"] == "start")]
            for row in part.to_dict("records"):
                student, method, seed = row["student"], row["method"], row["seed"]
                after, before = (student, method, seed), (student, start, seed)
                if after in table and before in table:
                    gain = sign * (table[after] - table[before])
                    rows.append((task, student, method, seed, outcome, float(row[statistic]), gain))
    return pd.DataFrame(rows, columns=["task", "student", "method", "seed", "outcome", "x", "y"])


def rank_table(outcomes: pd.DataFrame, values: pd.DataFrame, metrics: dict[str, str]) -> pd.DataFrame:
    """Spearman's correlation, across methods, of less noise at the start with the gain in J and in score.

    Args:
        outcomes: of ``StudyValues``.
        values: of ``kvar.results.trained_estimators.estimator_values``.
        metrics: task -> its main metric.

    Returns:
        One row a (task, student, outcome, statistic): methods, seeds, rho (mean over seeds; positive where less noise
        went with more gain), low, high (t interval over seeds, within [-1, 1]), p (of exchanging the methods; at five
        methods not below 0.017). Then, a row an outcome ("J" or "score") and statistic with task "all": the mean of
        these rho over the methods that all have, with the t interval over the (task, student) pairs, whose number is in
        ``seeds``; p is of exchanging the methods alike in every seed, task and student, since that one order of methods
        recurs is one observation and not many. Only methods that every seed has count; fewer than three leave rho NaN.
    """
    import pandas as pd

    columns = ["task", "student", "outcome", "statistic", "methods", "seeds", "rho", "low", "high", "p"]
    rows: list[tuple[Any, ...]] = []
    pooled: list[tuple[Any, ...]] = []
    for statistic in NOISE:
        gained = gains(outcomes, values, metrics, statistic=statistic)
        tables: dict[str, list[tuple[pd.DataFrame, pd.DataFrame]]] = {"J": [], "score": []}
        for (task, student, outcome), part in gained.groupby(["task", "student", "outcome"], sort=False):
            x = TABLE[statistic].sign * part.pivot(index="seed", columns="method", values="x")
            y = part.pivot(index="seed", columns="method", values="y")
            whole = x.columns[(x.notna() & y.notna()).all()]
            if len(whole):
                got = rank_correlation(x[whole].to_numpy(), y[whole].to_numpy())
                ends = (got.rho, got.low, got.high, got.p)
                rows.append((task, student, outcome, statistic, got.estimators, got.seeds, *ends))
                tables["J" if outcome == "J" else "score"].append((x[whole], y[whole]))
        pooled += [_pooled(outcome, statistic, each) for outcome, each in tables.items() if len(each) > 1]
    return pd.DataFrame(rows + pooled, columns=columns)


def _pooled(outcome: str, statistic: str, tables: list[tuple[pd.DataFrame, pd.DataFrame]]) -> tuple[Any, ...]:
    """One row for all tasks and students, over the methods that all have."""
    shared = [name for name in tables[0][0].columns if all(name in x.columns for x, _ in tables)]
    single = np.array([rank_correlation(x[shared].to_numpy(), y[shared].to_numpy()).rho for x, y in tables])
    x, y = (np.concatenate([pair[side][shared].to_numpy() for pair in tables]) for side in (0, 1))
    p = rank_correlation(x, y).p
    rho, low, high = mean_with_interval(single)
    return ("all", "all", outcome, statistic, len(shared), len(tables), rho, max(low, -1.0), min(high, 1.0), p)
