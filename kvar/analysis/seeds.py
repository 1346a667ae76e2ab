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
    from scipy.special import stdtrit

    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1; got {confidence!r}. Use 0.95 for a 95 % interval.")
    x = np.asarray(values, dtype=float)
    if not len(x):
        raise ValueError("values is empty: combining seeds needs at least one run.")
    logs = scale == "log" and bool((x > 0).all())
    y = np.log(x) if logs else x
    centre = float(y.mean())
    half = np.nan
    if len(y) > 1:
        half = float(stdtrit(len(y) - 1, 0.5 + confidence / 2) * y.std(ddof=1) / np.sqrt(len(y)))
    ends = (centre, centre - half, centre + half)
    return (float(np.exp(ends[0])), float(np.exp(ends[1])), float(np.exp(ends[2]))) if logs else ends


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
    import pandas as pd

    if "seed" not in statistics:
        raise ValueError("statistics has no column 'seed': add one to each run's frame before combining them.")
    keys = [name for name in by if name in statistics]
    repeated = statistics.duplicated([*keys, "seed"])
    if bool(repeated.any()):
        row = statistics[repeated].iloc[0]
        raise ValueError(
            f"seed {row['seed']} occurs twice for {', '.join(f'{k}={row[k]}' for k in keys)}: give each run one seed."
        )
    rows = []
    for key, part in statistics.groupby(keys, sort=False, dropna=False, observed=True):
        scale: Literal["plain", "log"] = "log" if _positive(str(part["statistic"].iloc[0])) else "plain"
        value, low, high = mean_with_interval(part["value"].to_numpy(dtype=float), confidence, scale)
        within = float(((part["high"] - part["low"]) / 2).median())
        rows.append((*key, value, low, high, len(part), within))
    return pd.DataFrame(rows, columns=[*keys, "value", "low", "high", "n", "within"])


def _positive(statistic: str) -> bool:
    """Whether a statistic is a variance, a ratio of variances, or a noise scale."""
    return statistic in ("relative_variance", "noise_scale", "within") or statistic.startswith("trace")
