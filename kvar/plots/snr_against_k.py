"""Figure: signal to noise of the batch gradient against K."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvar.analysis.frames.statistics_frame import select
from kvar.plots.parts.draw import by_student, draw_line, log_if_positive
from kvar.plots.parts.levels import draw_levels, levels
from kvar.plots.parts.style import COLUMN_WIDTH, context, legend_above, new_axes, student_series
from kvar.plots.parts.ticks import k_axis

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["snr_against_k"]


def snr_against_k(
    frame: pd.DataFrame,
    *,
    group: str = "all",
    step: int | str = "last",
    width: float = COLUMN_WIDTH,
    ax: Axes | None = None,
) -> Axes:
    """SNR = |E g|^2 / (tr Cov / B), theory.md section 4, against K: one line a student, with intervals.

    The axis is logarithmic where every SNR is positive, else linear: the estimated signal may be negative.

    Args:
        frame: a statistics frame with ``snr``.
        group: parameter group.
        step: training step, or "last".
        width: inches of a fresh figure.
        ax: axes to draw on instead of a fresh figure.

    Raises:
        ValueError: the frame is empty or lacks a column or the statistic; the message names it.
    """
    measured = select(frame, "snr", group=group, step=step)
    looks = student_series(frame, measured)
    level = levels(frame, "snr", group=group, step=step, smallest=False)
    with context():
        ax = new_axes(ax, width=width)
        for name, look, rows, x in by_student(looks, measured, k_axis(ax, measured["k"]), 0.12):
            draw_line(ax, x, rows, look, gid=f"measured:{name}")
        log_if_positive(ax, measured)
        ax.set_ylim(top=max([ax.get_ylim()[1], *(1.3 * level["value"])]))
        ax.set_ylabel("SNR of a step")
        legend_above(ax)
        draw_levels(ax, level)
    return ax
