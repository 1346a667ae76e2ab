"""Probes of a study's seeds combined: a frame for figures, and how likely each K is the best."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kvar.analysis.frames.across_seeds import across_seeds
from kvar.analysis.statistic_table import TABLE
from kvar.intervals.probability_of_best import probability_over_seeds

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BEST", "best_chances", "combined_statistics", "in_noise"]

BEST = {"efficiency": "best_probability", "mse": "mse_best_probability"}
"""Statistic that decides -> the statistic that says how likely each kernel is the best by it."""

_BY = ("task", "student", "parameters", "method", "step", "group", "kernel", "k", "statistic")


def in_noise(statistics: pd.DataFrame, batch: float) -> pd.DataFrame:
    """``bias_in_noise`` and ``mse_in_noise``: squared bias and error of a step over tr Cov(g) / B of K = 1, by run.

    Traces differ between students by orders of magnitude; that of K = 1, the best resolved of all, is the unit. An
    error of 1 is that of K = 1 itself, where no bias is.

    Args:
        statistics: of ``StudyValues``.
        batch: B that ``mse`` was formed for.

    Returns:
        Rows of the same columns; without intervals where those of bias and error have none.
    """
    rows = statistics[(statistics["statistic"] == "trace") & (statistics["kernel"] == "K=1")]
    place = ["task", "student", "method", "seed", "step", "group"]
    unit = (rows.set_index(place)["value"] / batch).rename("unit")
    names, ends = {"bias_sq": "bias_in_noise", "mse": "mse_in_noise"}, ["value", "low", "high"]
    out = statistics[statistics["statistic"].isin(list(names))].join(unit, on=place)
    out["statistic"] = out["statistic"].map(names)
    out[ends] = out[ends].div(out["unit"], axis=0)
    return out.drop(columns="unit")


def combined_statistics(statistics: pd.DataFrame, batch: float) -> pd.DataFrame:
    """The mean over seeds of every statistic, with t intervals over seeds; n counts seeds.

    ``best_probability`` and ``mse_best_probability`` are formed anew from the seeds' efficiencies and errors
    (:func:`kvar.intervals.probability_of_best.probability_over_seeds`), over the kernels that have a K.

    Args:
        statistics: of ``StudyValues``.
        batch: B of its efficiencies and errors.

    Returns:
        Columns task, student, parameters, method, step, group, kernel, k, statistic, value, low, high, n.
    """
    import pandas as pd

    plain = statistics[~statistics["statistic"].isin(list(BEST.values()))]
    both = pd.concat([plain, in_noise(statistics, batch)], ignore_index=True)
    combined = across_seeds(both, by=_BY).drop(columns="within")
    chances = [best_chances(statistics, of) for of in BEST]
    return pd.concat([combined, *(table for table in chances if len(table))], ignore_index=True)


def best_chances(statistics: pd.DataFrame, of: str = "efficiency") -> pd.DataFrame:
    """How likely each kernel with a K is the best, over seeds; nothing for one seed, or where one lacks an efficiency.

    Args:
        statistics: of ``StudyValues``.
        of: the statistic that decides, a key of :data:`BEST`.

    Returns:
        Rows of :func:`combined_statistics` with statistic ``BEST[of]``.
    """
    import pandas as pd

    rows = statistics[(statistics["statistic"] == of) & statistics["k"].notna()]
    by = [*_BY[:-3], "statistic"]
    along = statistics[statistics["statistic"] == "efficiency"]
    told = along.groupby([*by[:-1], "seed"], observed=True)["value"].count().unstack()
    lost = set(told.index[(told == 0).any(axis=1)])  # |g*|^2 of a seed is not resolved
    out = []
    for key, part in rows.groupby(by, sort=False, observed=True):
        table = part.pivot(index="seed", columns="k", values="value")
        chance = probability_over_seeds(table.to_numpy(dtype=float), smallest=TABLE[of].sign < 0)
        kernels = dict(zip(part["k"], part["kernel"], strict=True))
        if key[:-1] not in lost and np.isfinite(chance).all():
            out += [
                (*key[:-1], kernels[k], k, BEST[of], float(p), np.nan, np.nan, len(table))
                for k, p in zip(table.columns, chance, strict=True)
            ]
    return pd.DataFrame(out, columns=[*_BY, "value", "low", "high", "n"])
