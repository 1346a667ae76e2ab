"""Figure: how the gradient's variance falls with K, beside what T0 predicts and what mere scale would give."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kvar.analysis.frames.statistics_frame import select
from kvar.plots.parts.draw import by_student, draw_line, log_if_positive
from kvar.plots.parts.levels import draw_levels, levels
from kvar.plots.parts.style import COLUMN_WIDTH, PREDICTED, context, legend_above, new_axes, student_series
from kvar.plots.parts.ticks import k_axis

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["variance_against_k"]


def variance_against_k(
    frame: pd.DataFrame,
    *,
    group: str = "all",
    step: int | str = "last",
    prediction: bool = True,
    width: float = COLUMN_WIDTH,
    ax: Axes | None = None,
) -> Axes:
    """The ratio of tr Cov(g^K), theory.md eq. (8), to K = 1 against K: one line a student, with intervals.

    Filled markers are measured; hollow ones on a dashed line, a little to the right, are T0's prediction, eqs. (15) and
    (16), unmarked at K = 1 where the ratio is one by definition. The grey guide is 1 / K^2, "pure scale": what a return
    that only shrank by 1 / K would give, with no gain in direction at all (theory.md section 4, "Scale"). Of a lone
    student, estimators with a reward of their own, which have no K, are level lines with their names.

    Args:
        frame: a statistics frame with ``trace_ratio`` and, for the prediction, ``trace_ratio_t0``.
        group: parameter group.
        step: training step, or "last".
        prediction: draw T0 as well.
        width: inches of a fresh figure.
        ax: axes to draw on instead of a fresh figure.

    Raises:
        ValueError: the frame is empty or lacks a column or a statistic; the message names it.
    """
    from matplotlib.lines import Line2D

    measured = select(frame, "trace_ratio", group=group, step=step)
    predicted = select(frame, "trace_ratio_t0", group=group, step=step) if prediction else measured.iloc[:0]
    looks = student_series(frame, measured)
    level = levels(frame, "trace_ratio", group=group, step=step)
    with context():
        ax = new_axes(ax, width=width)
        places = k_axis(ax, [*measured["k"], *predicted["k"]])
        handles = [
            draw_line(ax, x, rows, look, gid=f"measured:{name}", line="-")
            for name, look, rows, x in by_student(looks, measured, places, 0.11)
        ]
        for name, look, rows, x in by_student(looks, predicted, places, 0.11):
            ax.plot(
                x + 0.055, rows["value"], **PREDICTED, color=look.colour, marker=look.marker, gid=f"T0:{name}",
                zorder=2.5, markevery=[int(j) for j in np.flatnonzero(rows["k"] != 1.0)],
            )  # fmt: skip
        finite = np.array([k for k in places if np.isfinite(k)])
        scale = finite**-2.0
        log_if_positive(ax, measured, predicted["value"], scale, level["value"])
        ax.set_ylabel("tr Cov(g), ratio to K = 1")
        if len(predicted):
            label = "T0 (independent gaps; a reference, not a fit)"
            handles.append(Line2D([], [], **PREDICTED, color="0.3", marker="o", label=label))
        if len(finite) > 1:
            handles += ax.plot(
                np.log2(finite), scale, color="0.45", linestyle=(0, (1, 1.5)), linewidth=1.0, gid="pure scale",
                label="pure scale, 1/K²", zorder=1,
            )  # fmt: skip
        legend_above(ax, handles)
        draw_levels(ax, level)
    return ax
