"""Statistics frames of several independent runs (seeds), combined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kvar.analysis.statistic_table import TABLE
from kvar.intervals.over_seeds import half_width

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["across_seeds"]


def across_seeds(
    statistics: pd.DataFrame,
    by: Sequence[str] = ("student", "parameters", "step", "group", "kernel", "k", "statistic"),
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Combine statistics frames of several seeds into one: the mean over seeds, with an interval from their spread.

    Args:
        statistics: rows as :func:`kvar.analysis.frames.recorded.statistics_of` gives them, with a column "seed"
            besides.
        by: the columns that name one quantity.
        confidence: of the intervals.

    Returns:
        The columns ``by``, value, low, high, n (seeds), and within: the median half-width that the single runs' own
        intervals had, to be held beside the spread among them. Traces, ratios and noise scales are averaged as
        logarithms where all are positive.

    Raises:
        ValueError: no column "seed", or a seed that occurs twice for one quantity.
    """
    if "seed" not in statistics:
        raise ValueError("statistics has no column 'seed': add one to each run's frame before combining them.")
    keys = [name for name in by if name in statistics]
    repeated = statistics.duplicated([*keys, "seed"])
    if bool(repeated.any()):
        row = statistics[repeated].iloc[0]
        raise ValueError(
            f"seed {row['seed']} occurs twice for {', '.join(f'{k}={row[k]}' for k in keys)}: give each run one seed."
        )
    frame = statistics.assign(
        half=(statistics["high"] - statistics["low"]) / 2, unknown=statistics["value"].isna(), y=statistics["value"]
    )
    by_quantity = frame.groupby(keys, sort=False, dropna=False, observed=True)
    geometric = {name for name, statistic in TABLE.items() if statistic.geometric}
    logs = frame["statistic"].isin(geometric) & (by_quantity["value"].transform("min") > 0)
    frame.loc[logs, "y"] = np.log(frame.loc[logs, "value"])
    groups = frame.assign(logs=logs).groupby(keys, sort=False, dropna=False, observed=True)
    table = groups.agg(
        value=("y", "mean"), spread=("y", "std"), n=("y", "size"), within=("half", "median"), logs=("logs", "first"),
        unknown=("unknown", "any"),
    ).reset_index()  # fmt: skip
    table.loc[table["unknown"], "value"] = np.nan
    reach = half_width(table["spread"].to_numpy(), table["n"].to_numpy(), confidence)
    table = table.assign(low=table["value"] - reach, high=table["value"] + reach)
    ends = ["value", "low", "high"]
    table.loc[table["logs"], ends] = np.exp(table.loc[table["logs"], ends])
    return table[[*keys, *ends, "n", "within"]]
