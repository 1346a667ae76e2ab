"""Tables that name students: whose rows are drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["one_student", "student_title"]


def one_student(table: pd.DataFrame, student: str | None) -> pd.DataFrame:
    """Rows of one student: the named one, or the last; the whole table where it names none.

    Raises:
        ValueError: no such student.
    """
    if "student" not in table:
        return table
    names = [str(name) for name in dict.fromkeys(table["student"])]
    if student is not None and student not in names:
        raise ValueError(f"the table has no student {student!r}; it has: {', '.join(names)}.")
    return table[table["student"] == (student or names[-1])]


def student_title(rows: pd.DataFrame) -> str | None:
    """Whose rows these are, for a legend's title; None where the table names no student."""
    return f"student {rows['student'].iloc[0]}" if "student" in rows else None
