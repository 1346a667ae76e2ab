"""Figure: how long gaps remember, which T0 takes for not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvar.analysis.frames.statistics_frame import need_columns
from kvar.plots.parts.draw import dodge, draw_line
from kvar.plots.parts.style import COLUMN_WIDTH, context, legend_above, new_axes, series, student_series
from kvar.plots.parts.tables import one_student

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["gap_autocorrelation"]


def gap_autocorrelation(
    table: pd.DataFrame, *, student: str | None = None, width: float = COLUMN_WIDTH, ax: Axes | None = None
) -> Axes:
    """Autocorrelation of gaps along a response by lag, with intervals: theory.md eq. (17); T0 takes it for zero.

    Several students: a line each, at its last step. One student: a line a step. Lag 0 is one and not drawn.

    Args:
        table: of :func:`kvar.analysis.return_statistics.gap_autocorrelation`; of several students with a column
            "student", and "parameters" for their order.
        student: draw this one only, all its steps.
        width: inches of a fresh figure.
        ax: axes to draw on instead of a fresh figure.

    Raises:
        ValueError: the table is empty or lacks a column or the student, or holds lag 0 only.
    """
    from matplotlib.ticker import MaxNLocator

    need_columns(table, ("step", "lag", "value", "low", "high"), "autocorrelation table")
    rows = (table if student is None else one_student(table, student)).query("lag > 0")
    if not len(rows):
        raise ValueError("the autocorrelation table holds lag 0 only: no response has two tokens.")
    if "student" in rows and rows["student"].nunique() > 1:
        rows = rows[rows["step"] == rows.groupby("student")["step"].transform("max")]
        names = list(dict.fromkeys(rows["student"]))
        looks = student_series(rows) if "parameters" in rows else dict(zip(names, series(names), strict=True))
        lines = [(look, rows[rows["student"] == name]) for name, look in looks.items()]
    else:
        steps = sorted(set(rows["step"]))
        shown = series([f"step {step}" for step in steps])
        lines = [(look, rows[rows["step"] == step]) for look, step in zip(shown, steps, strict=True)]
    with context():
        ax = new_axes(ax, width=width)
        ax.axhline(0.0, color="0.6", linewidth=0.8, zorder=0, gid="T0")
        for i, (look, part) in enumerate(lines):
            part = part.sort_values("lag")
            x = part["lag"].to_numpy(dtype=float) + dodge(i, len(lines), 0.14)
            draw_line(ax, x, part, look, gid=f"measured:{look.label}")
        ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        ax.set_xlabel("lag, tokens")
        ax.set_ylabel("autocorrelation of gaps")
        legend_above(ax)
    return ax
