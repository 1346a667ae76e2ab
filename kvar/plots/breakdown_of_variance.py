"""Figure: what T0 leaves out, term by term."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kvar.analysis.frames.statistics_frame import need_columns
from kvar.plots.parts.draw import draw_intervals, ends_of
from kvar.plots.parts.style import COLUMN_WIDTH, OKABE_ITO, context, legend_above, new_axes
from kvar.plots.parts.tables import one_student, student_title

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["breakdown_of_variance"]

_COLOURS = ("0.78", *OKABE_ITO[:6])
_HATCHES = ("", "", "////", "", "\\\\\\\\", "", "....")


def breakdown_of_variance(
    table: pd.DataFrame, *, student: str | None = None, width: float = COLUMN_WIDTH, ax: Axes | None = None
) -> Axes:
    """The terms that add up to tr Cov(g), as shares of it: T0's second moment and six corrections, a stacked bar a K.

    Positive terms stand on zero, negative ones hang from it; the line at one is the measured trace. Thin bars are the
    terms' intervals, each about the end of its own piece and side by side in the order of the legend.

    Args:
        table: of :func:`kvar.analysis.theory.breakdown`.
        student: its name, where the table holds several; by default the last.
        width: inches of a fresh figure.
        ax: axes to draw on instead of a fresh figure.

    Raises:
        ValueError: the table is empty or lacks a column, a term or the student.
    """
    from kvar.analysis.theory import TERMS

    need_columns(table, ("kernel", "term", "value", "low", "high", "share"), "breakdown table")
    rows = one_student(table, student)
    kernels = list(dict.fromkeys(rows["kernel"]))
    by_term = {term: rows[rows["term"] == term].set_index("kernel") for term in (*TERMS, "trace")}
    absent = [term for term, of_term in by_term.items() if set(of_term.index) != set(kernels)]
    if absent:
        raise ValueError(f"the breakdown table lacks the term {absent[0]!r} of some kernel.")
    trace = by_term["trace"].loc[kernels, "value"].to_numpy(dtype=float)
    with context():
        ax = new_axes(ax, width=width, ratio=0.95)
        x = np.arange(len(kernels))
        top, bottom = np.zeros(len(kernels)), np.zeros(len(kernels))
        bar = 0.74
        for i, term in enumerate(TERMS):
            value, low, high = (end / trace for end in ends_of(by_term[term].loc[kernels]))
            start = np.where(value >= 0, top, bottom)
            ax.bar(
                x, value, bar, bottom=start, color=_COLOURS[i], hatch=_HATCHES[i], edgecolor="white", linewidth=0.4,
                label=term, gid=f"term:{term}",
            )  # fmt: skip
            at = x + bar * ((i + 1) / (len(TERMS) + 1) - 0.5)
            draw_intervals(ax, at, start + low, start + high, gid=f"term:{term}:interval", color="0.15", linewidth=0.7)
            top, bottom = np.where(value >= 0, top + value, top), np.where(value < 0, bottom + value, bottom)
        ax.axhline(0.0, color="0.4", linewidth=0.7, gid="zero")
        ax.axhline(1.0, color="0.4", linewidth=0.7, linestyle=(0, (3, 2)), gid="measured")
        ax.set_xticks(x, [kernel.removeprefix("K=") if kernel != "immediate" else "∞" for kernel in kernels])
        ax.set_xlabel("K")
        ax.set_ylabel("share of the measured tr Cov(g)")
        legend_above(ax, title=student_title(rows), short=True)
    return ax
