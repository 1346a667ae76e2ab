"""The report's table of where a step of each estimator leads."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from kvar.analysis.frames.statistics_frame import at_step
from kvar.intervals import Interval, number

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["leads_table"]


def leads_table(leads: pd.DataFrame, *, step: int | str = "all") -> pd.DataFrame:
    """A line a student, step and estimator, and a column a target: toward it, away from it, or not resolved.

    Args:
        leads: tables of :func:`kvar.analysis.toward_over_training` with a column ``student``.
        step: training step, "last", or "all".

    Returns:
        Columns student, step, estimator and the targets; a cell is the verdict with the efficiency and its interval,
        and where the sign is not told, how many prompts or responses would tell it. Without rows where there are none.
    """
    import pandas as pd

    if not len(leads):
        return pd.DataFrame()
    lines: dict[tuple[Any, ...], dict[str, str]] = {}
    for row in at_step(leads, step).to_dict("records"):
        lines.setdefault((row["student"], row["step"], row["estimator"]), {})[f"toward {row['target']}"] = _cell(row)
    heads = ("student", "step", "estimator")
    return pd.DataFrame([{**dict(zip(heads, key, strict=True)), **cells} for key, cells in lines.items()]).fillna("-")


def _cell(row: dict[Any, Any]) -> str:
    if math.isnan(row["efficiency"]):
        return "target not resolved"
    text = f"{row['leads']}, {Interval(row['efficiency'], row['efficiency_low'], row['efficiency_high']).compact()}"
    needs = row["units_to_resolve"]
    return text if row["leads"] != "not resolved" or not math.isfinite(needs) else f"{text}, n = {number(needs)} would"
