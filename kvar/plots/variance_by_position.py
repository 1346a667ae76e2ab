"""Figure: where along the response the gradient's variance arises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from kvar.analysis.frames.statistics_frame import need_columns
from kvar.plots.parts.draw import dodge, draw_line, log_if_positive, zero_line
from kvar.plots.parts.style import COLUMN_WIDTH, context, legend_above, new_axes, series
from kvar.plots.parts.tables import one_student, student_title

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["variance_by_position"]

_COLUMNS = ("kernel", "first", "last", "own", "own_low", "own_high", "share", "share_low", "share_high")


def variance_by_position(
    table: pd.DataFrame,
    *,
    quantity: Literal["share", "own"] = "share",
    student: str | None = None,
    width: float = COLUMN_WIDTH,
    ax: Axes | None = None,
) -> Axes:
    """The share of tr Cov(g) that arises in each range of positions, or what the range varies by itself: a line a K.

    Shares count half of every covariance with other ranges, add up to one, and may be negative.

    Args:
        table: of :func:`kvar.analysis.by_position`, or of ``by_position_of`` (its last step is drawn).
        quantity: "share", or "own" for the variance of the range's own part of g.
        student: its name, where the table holds several; by default the last.
        width: inches of a fresh figure.
        ax: axes to draw on instead of a fresh figure.

    Raises:
        ValueError: the table is empty or lacks a column or the student, or another quantity.
    """
    if quantity not in ("share", "own"):
        raise ValueError(f"quantity must be 'share' or 'own'; got {quantity!r}.")
    need_columns(table, _COLUMNS, "position table")
    rows = one_student(table, student)
    if "step" in rows:
        rows = rows[rows["step"] == rows["step"].max()]
    ranges = sorted(set(zip(rows["first"], rows["last"], strict=True)))
    kernels = list(dict.fromkeys(rows["kernel"]))
    rows = rows.sort_values("first", kind="stable")
    drawn = rows.assign(value=rows[quantity], low=rows[f"{quantity}_low"], high=rows[f"{quantity}_high"])
    with context():
        ax = new_axes(ax, width=width)
        for i, look in enumerate(series(kernels)):
            line = drawn[drawn["kernel"] == look.label]
            x = np.array([ranges.index(ends) for ends in zip(line["first"], line["last"], strict=True)])
            draw_line(ax, x + dodge(i, len(kernels), 0.1), line, look, gid=f"measured:{look.label}")
        if quantity == "share":
            zero_line(ax)
        else:
            log_if_positive(ax, drawn)
        ax.set_xticks(range(len(ranges)), [f"{a:.0f}" if a == b else f"{a:.0f}-{b:.0f}" for a, b in ranges])
        ax.set_xlim(-0.4, len(ranges) - 0.6)
        ax.set_xlabel("position in the response")
        ax.set_ylabel("share of tr Cov(g)" if quantity == "share" else "tr Cov of the range's part of g")
        legend_above(ax, title=student_title(rows))
    return ax
