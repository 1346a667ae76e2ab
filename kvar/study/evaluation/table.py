"""Evaluations as plain text tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvar.intervals import Interval, number

if TYPE_CHECKING:
    from kvar.study.evaluation.result import Result

__all__ = ["difference_table", "score_table"]


def score_table(result: Result) -> str:
    """Every score of one model with its interval."""
    n, level = len(result.examples), result.options.level
    rows = [("score", "value", f"{level:.0%} interval")]
    rows += [(name, number(i.value, 4), _range(i)) for name, i in result.scores.items()]
    split = result.target.settings.evaluation.eval_split
    head = f"{result.target.name} ({split}, n = {n}, {result.options.resamples} resamples)"
    return "\n".join([head, *_aligned(rows)])


def difference_table(first: Result, second: Result, differences: dict[str, Interval]) -> str:
    """The scores of two models side by side, and their paired differences."""
    rows: list[tuple[str, ...]] = [
        ("score", "first", "second", "second - first", f"{first.options.level:.0%} interval")
    ]
    rows += [
        (name, *(number(x.value, 4) for x in (first.scores[name], second.scores[name], i)), _range(i))
        for name, i in differences.items()
    ]
    head = (
        f"first: {first.target.name}\nsecond: {second.target.name}\n"
        f"paired by example, n = {len(first.examples)}, {first.options.resamples} resamples"
    )
    return "\n".join([head, *_aligned(rows)])


def _range(interval: Interval) -> str:
    return f"{number(interval.low, 4)} to {number(interval.high, 4)}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column in (0, len(row) - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
