"""Numbers with their intervals, looked up in a statistics frame by student and kernel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvar.plots.frame import find
from kvar.plots.ticks import k_label

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Best", "Cell", "best_k", "cells", "kernel_name", "number"]


def number(value: float, digits: int = 2) -> str:
    """A number to so many significant digits, without an exponent where it reads well.

    >>> [number(v) for v in (0.0286, 1.0, -0.00012, 256.0, 3.2e-9, float("nan"))]
    ['0.029', '1', '-0.00012', '256', '3.2e-09', '-']
    """
    if not math.isfinite(value):
        return "-" if math.isnan(value) else str(value)
    if value == 0 or 10 ** (digits - 1) <= abs(value) < 1e5:
        return f"{value:.{max(digits, 3)}g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{value:.{digits}g}"


@dataclass(frozen=True)
class Cell:
    """An estimate with its 95 % interval; NaN ends mean that the interval is unknown.

    ``best`` is for tables: whether it is shown in bold. ``n``: how many seeds it is a mean of, where that is told.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    best: bool = False
    n: int | None = None

    @property
    def known(self) -> bool:
        """Whether both ends of the interval are known."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    def above(self, other: Cell | float) -> bool:
        """Whether the interval lies wholly above a number, or above another known interval."""
        end = other.high if isinstance(other, Cell) else other
        return self.known and self.low > end

    def below(self, other: Cell | float) -> bool:
        """Whether the interval lies wholly below a number, or below another known interval."""
        end = other.low if isinstance(other, Cell) else other
        return self.known and self.high < end

    def __str__(self) -> str:
        """Value, then the interval in brackets where it is known."""
        if not self.known:
            return number(self.value)
        return f"{number(self.value)} ({number(self.low)} to {number(self.high)})"


def cells(
    frame: pd.DataFrame, statistic: str, *, group: str = "all", step: int | str = "last", only_k: bool = True
) -> dict[str, dict[float | str, Cell]]:
    """One statistic as student -> K -> :class:`Cell`, K ascending; student -> kernel name where ``only_k`` is false."""
    found: dict[str, dict[float | str, Cell]] = {}
    rows = find(frame, statistic, group=group, step=step, only_k=only_k)
    keys = rows["k"].astype(float) if only_k else rows["kernel"]
    for student, key, value, low, high in zip(
        rows["student"], keys, rows["value"], rows["low"], rows["high"], strict=True
    ):
        found.setdefault(str(student), {})[key] = Cell(float(value), float(low), float(high))
    return found


def kernel_name(k: float) -> str:
    """How a sentence names a K: "K = 4", or "K = ∞" for the immediate kernel."""
    return f"K = {k_label(k)}"


@dataclass(frozen=True)
class Best:
    """The K that is most likely to point best, eq. (11'), its efficiency and that probability.

    Without probabilities, the K of highest efficiency; ``probability`` is then None. ``other`` is an estimator
    that is no plain K, such as one with a baseline, and likelier to point best than any K, with its probability.
    """

    k: float
    efficiency: Cell
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
