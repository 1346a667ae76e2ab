"""A section of the report: a heading, a remark and a table with sortable columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from kvar.intervals import Interval, number
from kvar.report.page.document import TEMPLATES
from kvar.report.tables.marked import Marked

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MOST_ROWS", "Grid", "Keyed", "grid", "section"]

MOST_ROWS = 400
"""Most rows of a table on a page."""


class Keyed(NamedTuple):
    """A text of a table whose column sorts by a number; ``head`` marks the head of a row."""

    text: str
    key: float
    head: bool = False


@dataclass(frozen=True)
class Cell:
    """A head or cell of a table, as the template shows it."""

    text: str
    attributes: dict[str, Any] = field(default_factory=dict)
    interval: str = ""
    bold: bool = False
    tag: str = "td"


class Grid(NamedTuple):
    """Heads and rows of a table."""

    heads: list[Cell]
    rows: list[list[Cell]]


def section(
    title: str, frame: pd.DataFrame, note: str = "", *, most: int = MOST_ROWS, titles: Mapping[str, str] | None = None
) -> Markup:
    """A section of the page around any table.

    Args:
        title: its heading.
        frame: any table, without its index. Numbers have three digits and sort by their full value; a
            :class:`kvar.intervals.Interval` shows its interval; missing values show as "-"; everything else is text.
        note: a remark below the heading.
        most: most rows shown; the section says where there are more.
        titles: column -> description, shown on hover.

    Returns:
        HTML, for ``further`` of :func:`kvar.report.write_report`.

    >>> import pandas as pd
    >>> table = pd.DataFrame({"method": ["<b>"], "bleu": [Interval(21.53, 20.9, 22.1)]})
    >>> html = section("Scores", table, "Three seeds.")
    >>> "&lt;b&gt;" in html, "21.5<small>20.9 to 22.1</small>" in html, "Three seeds." in html
    (True, True, True)
    """
    left_out = f"The first {most} of {len(frame)} rows." if len(frame) > most else ""
    parts: Any = TEMPLATES.get_template("parts.html").module
    return Markup(parts.section(title, [note, left_out], grid(frame.head(most), titles or {})))


def grid(frame: pd.DataFrame, titles: Mapping[str, str] | None = None) -> Grid:
    """The heads and cells of a table; see :func:`section` for how values are shown."""
    numeric = [_numeric(frame.iloc[:, i].tolist()) for i in range(frame.shape[1])]
    heads = [
        Cell(str(name), {"class": "number" if right else None, "title": (titles or {}).get(name) or None})
        for name, right in zip(frame.columns, numeric, strict=True)
    ]
    rows = frame.itertuples(index=False, name=None)
    return Grid(heads, [[_cell(value, right) for value, right in zip(row, numeric, strict=True)] for row in rows])


def _number(value: Any) -> bool:
    return isinstance(value, (Real, Interval)) and not isinstance(value, bool)


def _missing(value: Any) -> bool:
    if isinstance(value, Interval):
        return math.isnan(value.value)
    nan = isinstance(value, float) and math.isnan(value)
    return value is None or nan or type(value).__name__ in ("NAType", "NaTType")


def _numeric(values: Sequence[Any]) -> bool:
    """Whether a column has only numbers or intervals."""
    known = [value for value in values if not _missing(value)]
    return bool(known) and all(map(_number, known))


def _cell(value: Any, numeric: bool) -> Cell:
    if _missing(value):
        unmeasured = isinstance(value, Interval)
        kind = "number" if numeric or unmeasured else "text"
        return Cell("-", {"class": kind, "title": "not measured" if unmeasured else None})
    if isinstance(value, Keyed):
        return Cell(
            value.text, {"scope": "row" if value.head else None, "data-v": value.key}, tag="th" if value.head else "td"
        )
    if isinstance(value, Interval):
        ends = f"{number(value.low, 3)} to {number(value.high, 3)}" if value.known else ""
        attributes = {"class": "number", "data-v": float(value.value)}
        return Cell(number(value.value, 3), attributes, ends, bold=isinstance(value, Marked) and value.best)
    if _number(value):
        shown = str(value) if isinstance(value, int) else number(float(value), 3)
        return Cell(shown, {"class": "number", "data-v": float(value)})
    return Cell(str(value), {"class": "text"})
