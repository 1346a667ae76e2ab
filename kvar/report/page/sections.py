"""A section of the report: a heading, a remark and any table, whose columns sort by a click on their heads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from numbers import Real
from typing import TYPE_CHECKING, Any

from kvar.intervals import Interval, number
from kvar.report.tables.marked import Marked

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MOST_ROWS", "head_html", "section", "table_html"]

MOST_ROWS = 400
"""Rows of a table that a page shows; it says how many there are."""


def section(title: str, frame: pd.DataFrame, note: str = "", *, most: int = MOST_ROWS) -> str:
    """A section of the page around any table.

    Args:
        title: its heading.
        frame: any table; the index is not shown. Numbers are shown to three digits and sort by their full value;
            a :class:`kvar.intervals.Interval` is shown with its interval; what is missing shows as "-"; everything else
            is text, whatever it contains.
        note: a remark below the heading.
        most: the largest number of rows shown; where there are more, the section says so.

    Returns:
        HTML, for ``sections`` of :func:`kvar.report.write_report`.

    >>> import pandas as pd
    >>> table = pd.DataFrame({"method": ["<b>"], "bleu": [Interval(21.53, 20.9, 22.1)]})
    >>> html = section("Scores", table, "Three seeds.")
    >>> "&lt;b&gt;" in html, "21.5<small>20.9 to 22.1</small>" in html, "Three seeds." in html
    (True, True, True)
    """
    remark = f"<p>{escape(note)}</p>\n" if note else ""
    left_out = f"<p>The first {most} of {len(frame)} rows.</p>\n" if len(frame) > most else ""
    return f"<section>\n<h2>{escape(title)}</h2>\n{remark}{left_out}{table_html(frame.head(most))}\n</section>"


def table_html(frame: pd.DataFrame) -> str:
    """Any table, a line a row; see :func:`section` for how values are shown."""
    kinds = [_right(frame.iloc[:, i].tolist()) for i in range(frame.shape[1])]
    heads = head_html([(str(name), "") for name in frame.columns], kinds)
    lines = "\n".join(
        "<tr>" + "".join(_cell(value, right) for value, right in zip(row, kinds, strict=True)) + "</tr>"
        for row in frame.itertuples(index=False, name=None)
    )
    return f'<div class="wide"><table class="sortable">{heads}<tbody>\n{lines}\n</tbody></table></div>'


def head_html(names: Sequence[tuple[str, str]], right: Sequence[bool]) -> str:
    """The head of a table that sorts.

    Args:
        names: a column's name and what it is, shown on hover.
        right: whether a column holds numbers.
    """
    cells = "".join(
        f'<th scope="col"{_class(numbers)}{_title(what)}><button type="button">{escape(name)}</button></th>'
        for (name, what), numbers in zip(names, right, strict=True)
    )
    return f"<thead><tr>{cells}</tr></thead>"


def _class(numbers: bool) -> str:
    return ' class="number"' if numbers else ""


def _title(what: str) -> str:
    return f' title="{escape(what)}"' if what else ""


def _number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _missing(value: Any) -> bool:
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or type(value).__name__ in ("NAType", "NaTType")
    )


def _right(values: Sequence[Any]) -> bool:
    """Whether a column holds numbers, or estimates, and nothing else."""
    known = [value for value in values if not _missing(value)]
    return bool(known) and all(_number(value) or isinstance(value, Interval) for value in known)


def _cell(value: Any, right: bool) -> str:
    if isinstance(value, Interval):
        if _missing(value.value):
            return '<td class="number" title="not measured">-</td>'
        ends = f"<small>{number(value.low, 3)} to {number(value.high, 3)}</small>" if value.known else ""
        shown = (
            f"<strong>{number(value.value, 3)}</strong>"
            if isinstance(value, Marked) and value.best
            else number(value.value, 3)
        )
        return f'<td class="number" data-v="{float(value.value)!r}">{shown}{ends}</td>'
    if _missing(value):
        return f'<td class="{"number" if right else "text"}">-</td>'
    if _number(value):
        shown = str(value) if isinstance(value, int) else number(float(value), 3)
        return f'<td class="number" data-v="{float(value)!r}">{shown}</td>'
    return f'<td class="text">{escape(str(value))}</td>'
