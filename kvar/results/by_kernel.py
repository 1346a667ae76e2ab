"""Numbers with their intervals, looked up in a statistics frame by student and kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvar.analysis.frames.statistics_frame import find, students
from kvar.intervals import Interval, candidates

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["best_of_students", "cells"]


def cells(
    frame: pd.DataFrame, statistic: str, *, group: str = "all", step: int | str = "last", only_k: bool = True
) -> dict[str, dict[float | str, Interval]]:
    """One statistic as student -> K -> interval, K ascending; student -> kernel name where ``only_k`` is false."""
    table: dict[str, dict[float | str, Interval]] = {}
    rows = find(frame, statistic, group=group, step=step, only_k=only_k)
    keys = rows["k"].astype(float) if only_k else rows["kernel"]
    for student, key, value, low, high in zip(
        rows["student"], keys, rows["value"], rows["low"], rows["high"], strict=True
    ):
        table.setdefault(str(student), {})[key] = Interval(float(value), float(low), float(high))
    return table


def best_of_students(
    frame: pd.DataFrame, *, group: str = "all", step: int | str = "last"
) -> dict[str, dict[str, float]]:
    """Student -> the estimators that may point best, eq. (11'), each with its probability: :func:`candidates`.

    Students whose efficiency was not measured are left out; empty where it is not resolved.
    """
    chances = cells(frame, "best_probability", group=group, step=step, only_k=False)
    rows = frame[(frame["statistic"] == "efficiency") & (frame["group"] == group) & frame["low"].notna()]
    return {
        student: candidates({str(name): chance.value for name, chance in chances.get(student, {}).items()})
        for student in students(rows)
    }
