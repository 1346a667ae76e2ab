"""The table in the paper's form: a row a method, a column a student on each task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kvar.intervals import Interval
from kvar.report.tables.marked import Marked
from kvar.results.compare import NEITHER, not_resolved_from_best

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TEACHER", "markdown", "paper_cells", "plus_minus"]

TEACHER = "teacher"


def paper_cells(
    outcomes: pd.DataFrame,
    compared: pd.DataFrame,
    columns: Sequence[tuple[str, str]],
    *,
    methods: Sequence[str],
    students: Mapping[str, Sequence[str]],
    quantity: str = "value",
    teachers: Mapping[str, Mapping[str, Interval]] | None = None,
) -> pd.DataFrame:
    """Cells of a table with a row a method.

    Args:
        outcomes: of ``StudyValues``.
        compared: of ``kvar.results.compare.compare_methods``.
        columns: (task, outcome), each a group of columns with one a student.
        methods: rows in this order; those without any value in these columns are kept, blank.
        students: task -> its students, smallest first.
        quantity: "value", or a difference, such as "less_llmr".
        teachers: task -> outcome -> the teacher's own score: a row on top.

    Returns:
        A frame of cells, index the method, columns (task, outcome, student). ``Interval.n`` is its seeds;
        :func:`markdown` tells them where they are fewer than planned. ``Marked.best`` marks the best of the column and
        those not resolved from it by the paired interval (only for "value", and outcomes of which more or less is
        better). Cells that do not exist are None.
    """
    import pandas as pd

    ends = ("", "_low", "_high") if quantity != "value" else ("value", "low", "high")
    names = [quantity + end for end in ends] if quantity != "value" else list(ends)
    count = "n" if quantity == "value" else f"{quantity}_n"
    table: dict[Any, dict[Any, Any]] = compared.set_index(["task", "outcome", "student", "method"]).to_dict("index")
    shown: dict[tuple[str, str, str], dict[str, Interval | None]] = {}
    for task, outcome in columns:
        marked = {} if quantity != "value" or outcome in NEITHER else not_resolved_from_best(outcomes, outcome)
        for student in students[task]:
            cells: dict[str, Interval | None] = {}
            if teachers is not None:
                cells[TEACHER] = teachers.get(task, {}).get(outcome)
            alike = marked.get((task, student), set())
            for method in methods:
                row = table.get((task, outcome, student, method))
                if row is None or math.isnan(row[names[0]]):
                    cells[method] = None
                    continue
                value, low, high = (float(row[name]) for name in names)
                cells[method] = Marked(value, low, high, best=method in alike, n=int(row[count]))
            shown[task, outcome, student] = cells
    return pd.DataFrame(shown, dtype=object)


def plus_minus(cell: Interval | None, digits: int, full: int | None = None) -> str:
    """A mean and half its interval; "(n=2)" where it has fewer seeds than ``full``; bold in Markdown where best.

    >>> plus_minus(Marked(21.534, 20.9, 22.168, n=3, best=True), 2, 3), plus_minus(Interval(0.5, n=1), 2, 3)
    ('**21.53 ± 0.63**', '0.50 (n=1)')
    """
    if cell is None:
        return ""
    text = cell.plus_minus(digits)
    text += f" (n={cell.n})" if full is not None and cell.n is not None and cell.n < full else ""
    return f"**{text}**" if isinstance(cell, Marked) and cell.best else text


def markdown(cells: pd.DataFrame, titles: Mapping[Any, str], full: int) -> str:
    """The table as Markdown, "mean ± half-width" a cell.

    Args:
        cells: of :func:`paper_cells`.
        titles: its columns' heads.
        full: seeds planned; cells of fewer say how many they have.
    """
    digits = {column: _digits(cells[column]) for column in cells.columns}
    lines = ["| method | " + " | ".join(titles[column] for column in cells.columns) + " |"]
    lines.append("|---|" + "---:|" * len(cells.columns))
    for method, row in cells.iterrows():
        texts = [plus_minus(row[column] or None, digits[column], full) for column in cells.columns]
        lines.append(f"| {method} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def _digits(column: pd.Series) -> int:
    """Decimals that a column is shown with."""
    top = max((abs(cell.value) for cell in column if isinstance(cell, Interval)), default=1.0)
    return 3 if top < 1.5 else 2 if top < 100 else 1
