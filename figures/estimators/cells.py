"""Cells of the study, means over them, and methods held at equal J."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from kvar.intervals import Interval, mean_with_interval

BATCH = 64
"""Responses a step, one each to so many prompts."""
TARGETS = {"J": "J", "J_kl": "J_kl", "data": "data", "score": "score"}
CELL = ["task", "student", "seed"]
PAIR = ["task", "student"]
METHODS = {
    "llmr": ("LLMR (K = 1)", "K=1 - batch-mean"),
    "K=8": ("K = 8", "K=8 - batch-mean"),
    "immediate": ("immediate, sampled", "gap immediate"),
    "immediate-exact": ("immediate, exact", "gap immediate exact"),
    "kl-exact": ("reverse KL, exact", "kl immediate exact"),
    "sft": ("on the references", "data"),
}
"""Method -> its name in figures, and the estimator that it follows."""
GAP = ["llmr", "K=8", "immediate", "immediate-exact"]
"""The methods whose reward is the gap."""


def over(values: Iterable[float], scale: str = "plain") -> Interval:
    """The mean of cells with its t interval, from three on; NaN are left out, and n says how many were not."""
    x = np.asarray(list(values), dtype=float)
    x = x[np.isfinite(x)]
    if not len(x):
        return Interval(np.nan)
    if len(x) < 3:
        return Interval(float(x.mean()), n=len(x))
    return Interval(*mean_with_interval(x, scale=scale), n=len(x))  # type: ignore[arg-type]


def wide(gradients: pd.DataFrame, statistic: str, target: str = "", method: str = "start") -> pd.DataFrame:
    """Rows cells, columns estimators."""
    own = gradients[
        (gradients["statistic"] == statistic) & (gradients["target"] == target) & (gradients["method"] == method)
    ]
    return own.pivot(index=CELL, columns="estimator", values="value")


def noise(gradients: pd.DataFrame) -> pd.DataFrame:
    """|E g|^2 / tr Cov of a response at the start, the reciprocal of the relative variance, which may be negative."""
    return wide(gradients, "signal") / wide(gradients, "trace")


def reciprocal(x: Interval) -> Interval:
    """1 / x of an interval of a reciprocal; infinite where it reaches zero."""
    ends = [end if np.isnan(end) else 1 / end if end > 0 else np.inf for end in (x.value, x.high, x.low)]
    return Interval(ends[0], ends[1], ends[2], x.n)


def at_equal_j(points: pd.DataFrame, methods: list[str] = GAP, share: float = 1.0) -> pd.DataFrame:
    """Each quantity of each method where its J is the best that all reach in that cell, by lines between checkpoints.

    Columns the quantities, rows cell and method; ``at`` is that J. A method's curve ends at its best J. ``share``
    takes a part of the gain from the start up to that J.
    """
    rows = []
    quantities = ["nll", "length", "score", "J_kl"]
    for cell, own in points.groupby(CELL):
        start = own[own["method"] == "start"].tail(1)
        curves = {
            m: pd.concat([start.assign(step=0), own[own["method"] == m].sort_values("step")])
            for m in methods
            if (own["method"] == m).any()
        }
        if len(start) == 0 or len(curves) < len(methods):
            continue
        begun = float(start["J"].iloc[0])
        level = begun + share * (min(curve["J"].max() for curve in curves.values()) - begun)
        for method, curve in curves.items():
            rising = curve[curve["J"].cummax() == curve["J"]]  # up to the first time that J is reached
            rows.append(
                {
                    **dict(zip(CELL, cell, strict=True)),
                    "method": method,
                    "at": level,
                    "gain": level - begun,
                    "step": float(np.interp(level, rising["J"], rising["step"])),
                    **{q: float(np.interp(level, rising["J"], rising[q])) for q in quantities},
                }
            )
    return pd.DataFrame(rows)
