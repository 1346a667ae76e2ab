"""The statistics frame that every figure and table reads: its columns, and the one way to take rows out of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "at_step", "check_frame", "find", "need_columns", "select", "students"]

COLUMNS = (
    "student", "parameters", "step", "group", "kernel", "k", "statistic", "value", "low", "high", "n",
)  # fmt: skip
"""One row an observation; ``k`` is inf for the immediate kernel and NaN for kernels that have no K."""


def need_columns(table: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    """Refuse a table that lacks a column or has no row.

    Args:
        table: candidate.
        columns: what it must have.
        what: what the table is called in the message.

    Raises:
        ValueError: a column is missing (named), or there is no row.

    >>> import pandas as pd
    >>> need_columns(pd.DataFrame({"lag": [1]}), ("lag", "value"), "autocorrelation table")
    Traceback (most recent call last):
        ...
    ValueError: the autocorrelation table lacks the column value.
    """
    given = getattr(table, "columns", ())
    missing = [name for name in columns if name not in given]
    if missing and len(given):
        raise ValueError(f"the {what} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}.")
    if not len(table):
        raise ValueError(f"the {what} is empty: it has nothing to show. Measure something first.")


def check_frame(frame: pd.DataFrame) -> None:
    """Refuse what is not a statistics frame, one row an observation with the columns :data:`COLUMNS`.

    Raises:
        ValueError: a column is missing (named), or there is no row.
    """
    need_columns(frame, COLUMNS, "statistics frame")


def students(frame: pd.DataFrame) -> list[str]:
    """Names of the students, smallest first (by parameters, then by name)."""
    sizes = frame.groupby("student")["parameters"].max()
    return [str(name) for name in sorted(sizes.index, key=lambda name: (sizes[name], str(name)))]


def at_step(rows: pd.DataFrame, step: int | str) -> pd.DataFrame:
    """Rows of one training step: a step's number, "last" (each student's own last step), or "all"."""
    if step == "all":
        return rows
    if step == "last":
        return rows[rows["step"] == rows.groupby("student")["step"].transform("max")]
    return rows[rows["step"] == step]


def find(
    frame: pd.DataFrame, statistic: str, *, group: str = "all", step: int | str = "last", only_k: bool = True
) -> pd.DataFrame:
    """Rows of one statistic, ordered by student size, step and K; empty where there are none.

    Args:
        frame: a statistics frame.
        statistic: a name of ``kvar.plots.STATISTICS``.
        group: the parameter group.
        step: a training step, "last" (each student's last measured step), or "all".
        only_k: leave out kernels that have no K.

    Raises:
        ValueError: not a statistics frame, or two rows for one student, kernel and step.
    """
    check_frame(frame)
    rows = at_step(frame[frame["group"] == group], step)
    rows = rows[(rows["statistic"] == statistic) & rows["value"].notna()]
    if only_k:
        rows = rows[rows["k"].notna()]
    key = ["student", "step", "k" if only_k else "kernel"]
    twice = rows[rows.duplicated(key)]
    if len(twice):
        row = twice.iloc[0]
        raise ValueError(
            f"the statistics frame has more than one {statistic!r} for student {row['student']!r}, kernel "
            f"{row['kernel']!r}, step {row['step']}: keep one kernel for each K, and average seeds before plotting."
        )
    return rows.sort_values(["parameters", "student", "step", "k"], kind="stable")


def select(
    frame: pd.DataFrame, statistic: str, *, group: str = "all", step: int | str = "last", only_k: bool = True
) -> pd.DataFrame:
    """As :func:`find`, but missing rows are an error.

    Raises:
        ValueError: no such row; the message names the statistic, group and step and what there is instead.
    """
    rows = find(frame, statistic, group=group, step=step, only_k=only_k)
    if len(rows):
        return rows
    groups = sorted(map(str, frame["group"].unique()))
    if group not in groups:
        raise ValueError(f"the statistics frame has no group {group!r}; its groups: {', '.join(groups)}.")
    valued = frame[(frame["group"] == group) & frame["value"].notna()]
    if statistic in set(valued["statistic"]):
        rows = valued[valued["statistic"] == statistic]
        steps = ", ".join(str(s) for s in sorted(rows["step"].unique()))
        what = "for a kernel with a K" if only_k else "at that step"
        raise ValueError(f"the statistics frame has no {statistic!r} {what} at step {step!r}; measured steps: {steps}.")
    have = ", ".join(sorted(map(str, valued["statistic"].unique()))) or "none with a value"
    raise ValueError(f"the statistics frame has no {statistic!r} in group {group!r}; its statistics: {have}.")
