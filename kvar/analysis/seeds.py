"""One estimate from several independent runs (seeds)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from kvar.analysis.estimate import Array

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["across_seeds", "mean_with_interval"]


def mean_with_interval(
    values: Array, confidence: float = 0.95, scale: Literal["plain", "log"] = "plain"
) -> tuple[float, float, float]:
    """Mean of independent runs with a t interval of (runs - 1) degrees of freedom.

    What differs between runs, sampling noise within each included, is the spread among them; nothing else is assumed.

    Args:
        values: (S,) one number a run; NaN are refused by the result being NaN.
        confidence: of the interval.
        scale: "log" takes the geometric mean, for ratios and variances; plain where a value is not positive.

    Returns:
        Mean, low, high; the ends are NaN for one run.

    Raises:
        ValueError: no value, or a confidence outside (0, 1).

    Example:
        >>> [round(x, 2) for x in mean_with_interval(np.array([1.0, 2.0, 3.0]))]
        [2.0, -0.48, 4.48]
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1; got {confidence!r}. Use 0.95 for a 95 % interval.")
    x = np.asarray(values, dtype=float)
    if not len(x):
        raise ValueError("values is empty: combining seeds needs at least one run.")
    logs = scale == "log" and bool((x > 0).all())
    y = np.log(x) if logs else x
    centre = float(y.mean())
    half = float(_reach(y.std(ddof=1, keepdims=True), np.array([len(y)]), confidence)[0]) if len(y) > 1 else np.nan
    ends = (centre, centre - half, centre + half)
    return (float(np.exp(ends[0])), float(np.exp(ends[1])), float(np.exp(ends[2]))) if logs else ends


def _reach(spread: Array, n: Array, confidence: float) -> Array:
    """Half a t interval from the standard deviation over n runs; NaN for one run."""
    from scipy.special import stdtrit

    with np.errstate(invalid="ignore"):
        return np.asarray(stdtrit(n - 1.0, 0.5 + confidence / 2) * spread / np.sqrt(n))


def across_seeds(
    statistics: pd.DataFrame,
    by: Sequence[str] = ("student", "parameters", "step", "group", "kernel", "k", "statistic"),
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Combine statistics frames of several seeds into one: the mean over seeds, with an interval from their spread.

    Args:
        statistics: rows as :func:`kvar.analysis.runs.statistics_of` gives them, with a column "seed" besides.
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
    logs = frame["statistic"].map(_positive) & (by_quantity["value"].transform("min") > 0)
    frame.loc[logs, "y"] = np.log(frame.loc[logs, "value"])
    found = frame.assign(logs=logs).groupby(keys, sort=False, dropna=False, observed=True)
    table = found.agg(
        value=("y", "mean"), spread=("y", "std"), n=("y", "size"), within=("half", "median"), logs=("logs", "first"),
        unknown=("unknown", "any"),
    ).reset_index()  # fmt: skip
    table.loc[table["unknown"], "value"] = np.nan
    reach = _reach(table["spread"].to_numpy(), table["n"].to_numpy(), confidence)
    table = table.assign(low=table["value"] - reach, high=table["value"] + reach)
    ends = ["value", "low", "high"]
    table.loc[table["logs"], ends] = np.exp(table.loc[table["logs"], ends])
    return table[[*keys, *ends, "n", "within"]]


def _positive(statistic: str) -> bool:
    """Whether a statistic is a variance, a ratio of variances, or a noise scale."""
    return statistic in ("relative_variance", "noise_scale", "within") or statistic.startswith("trace")
