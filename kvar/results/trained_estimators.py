"""Each method's estimator as its study's probes measured it: at the start of the training, and after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kvar.intervals.fieller import ratio_of_means
from kvar.intervals.over_seeds import mean_with_interval
from kvar.intervals.probability_of_best import probability_over_seeds
from kvar.results.compare import GROUPS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MEASURED", "best_kernel", "estimator_table", "estimator_values"]

MEASURED = ("trace", "signal", "bias_sq", "efficiency", "snr")
"""Statistics taken of each method's estimator; the relative variance is formed of the first two's means."""


def estimator_values(cells: pd.DataFrame, statistics: pd.DataFrame) -> pd.DataFrame:
    """Every finished cell's estimator as measured at the start (of the same seed) and by the cell's own last probe.

    Args:
        cells: of ``StudyValues``.
        statistics: of ``StudyValues``.

    Returns:
        task, student, method, seed, estimator, when ("start" or "after"), and a column a statistic of
        :data:`MEASURED`. Cells whose estimator was not probed have no row.
    """
    import pandas as pd

    columns = [*GROUPS, "seed", "estimator", "when", *MEASURED]
    if not len(statistics):
        return pd.DataFrame(columns=columns)
    rows = statistics[(statistics["group"] == "all") & statistics["statistic"].isin(MEASURED)]
    places = [*GROUPS, "seed", "kernel"]
    table: dict[Any, dict[Any, float]] = rows.pivot(index=places, columns="statistic", values="value").to_dict("index")
    out = []
    for cell in cells[cells["finished"] & cells["estimator"].notna()].to_dict("records"):
        task, student, seed, estimator = (cell[name] for name in ("task", "student", "seed", "estimator"))
        for when in ("start", "after"):
            measured = table.get((task, student, cell["start" if when == "start" else "method"], seed, estimator))
            if measured is not None:
                numbers = [measured.get(name, np.nan) for name in MEASURED]
                out.append((task, student, cell["method"], seed, estimator, when, *numbers))
    return pd.DataFrame(out, columns=columns)


def estimator_table(cells: pd.DataFrame, statistics: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Per method, over seeds: trace, relative variance, squared bias, efficiency and best K, at start and after.

    Traces are averaged as logarithms, the rest plainly, with t intervals over seeds; the relative variance is the mean
    trace over the mean signal, with Fieller's interval (infinite ends where the signal is not resolved).

    Args:
        cells: of ``StudyValues``.
        statistics: of ``StudyValues``.
        confidence: of the intervals.

    Returns:
        One row a (task, student, method): for W in start, after and X in trace, relative_variance, bias_sq, efficiency:
        X_at_W, with _low, _high and _n; and best_k_at_W, the kernel of the largest efficiency among those with a K, by
        its name, with its probability over seeds in best_k_at_W_p. For a method without a probed estimator only best_k
        is known, and for one without a probe nothing after it.
    """
    import pandas as pd

    values = estimator_values(cells, statistics)
    parts = {key: part for key, part in values.groupby([*GROUPS, "when"], sort=False, observed=True)}
    best = best_kernel(statistics)
    rows = []
    for (task, student, method), part in cells.groupby(GROUPS, sort=False, observed=True):
        row: dict[str, object] = {"task": task, "student": student, "method": method}
        starts = part["start"].dropna()
        places = {"start": str(starts.iloc[0]) if len(starts) else "", "after": str(method)}
        for when, of in places.items():
            measured = parts.get((task, student, method, when))
            if measured is not None:
                row |= _averages(measured, when, confidence)
            if (str(task), str(student), of) in best:
                row[f"best_k_at_{when}"], row[f"best_k_at_{when}_p"] = best[str(task), str(student), of]
        rows.append(row)
    return pd.DataFrame(rows)


def _averages(values: pd.DataFrame, when: str, confidence: float) -> dict[str, object]:
    numbers = {name: values[name].to_numpy(dtype=float) for name in MEASURED}
    averages = {
        "trace": mean_with_interval(numbers["trace"], confidence, "log"),
        "relative_variance": ratio_of_means(numbers["trace"], numbers["signal"], confidence),
        "bias_sq": mean_with_interval(numbers["bias_sq"], confidence),
        "efficiency": mean_with_interval(numbers["efficiency"], confidence),
    }
    row: dict[str, object] = {}
    for name, ends in averages.items():
        row |= {f"{name}_at_{when}{end}": number for end, number in zip(("", "_low", "_high"), ends, strict=True)}
    return row | {f"n_at_{when}": len(values)}


def best_kernel(statistics: pd.DataFrame) -> Mapping[tuple[str, str, str], tuple[str, float]]:
    """(task, student, method) -> the kernel of the largest mean efficiency over seeds, and its probability to be it.

    Only kernels that have a K take part. Probabilities are those of :func:`kvar.intervals.probability_over_seeds`: NaN
    for one seed. Where some seed has no efficiency of a kernel (its direction was not resolved) there is no entry.
    """
    winners: dict[tuple[str, str, str], tuple[str, float]] = {}
    if not len(statistics):
        return winners
    of = (statistics["group"] == "all") & (statistics["statistic"] == "efficiency") & statistics["k"].notna()
    for (task, student, method), part in statistics[of].groupby(GROUPS, sort=False, observed=True):
        table = part.pivot(index="seed", columns="kernel", values="value")
        numbers = table.to_numpy(dtype=float)
        if np.isfinite(numbers).all():
            winner = int(np.argmax(numbers.mean(axis=0)))
            chance = float(probability_over_seeds(numbers, smallest=False)[winner])
            winners[str(task), str(student), str(method)] = (str(table.columns[winner]), chance)
    return winners
