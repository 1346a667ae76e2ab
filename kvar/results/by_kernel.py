"""Numbers with their intervals, looked up in a statistics frame by student and kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvar.analysis.frames.statistics_frame import find
from kvar.intervals import Interval

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Best", "best_k", "cells"]


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


@dataclass(frozen=True)
class Best:
    """The K that is most likely to point best, eq. (11'), its efficiency and that probability.

    Without probabilities, the K of highest efficiency; ``probability`` is then None. ``other`` is an estimator
    that is no plain K, such as one with a baseline, and likelier to point best than any K, with its probability.
    """

    k: float
    efficiency: Interval
    probability: float | None
    other: tuple[str, float] | None = None


def best_k(frame: pd.DataFrame, *, group: str = "all", step: int | str = "last") -> dict[str, Best]:
    """Student -> :class:`Best`, for the students whose efficiency was measured."""
    chances = cells(frame, "best_probability", group=group, step=step)
    every = cells(frame, "best_probability", group=group, step=step, only_k=False)
    best = {}
    for student, row in cells(frame, "efficiency", group=group, step=step).items():
        known = {k: chance.value for k, chance in chances.get(student, {}).items()}
        k = max(row, key=lambda k: (known.get(k, 0.0), row[k].value))
        rivals = {str(name): chance.value for name, chance in every.get(student, {}).items()}
        first = max(rivals, key=rivals.__getitem__, default="")
        other = (first, rivals[first]) if known and rivals[first] > max(known.values()) else None
        best[student] = Best(float(k), row[k], known.get(k), other)
    return best
