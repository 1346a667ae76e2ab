"""Figure: does the effect of K depend on how large the student is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvar.plots.draw import draw_line, log_if_positive
from kvar.plots.frame import STATISTICS, select
from kvar.plots.style import COLUMN_WIDTH, context, legend_above, new_axes, series
from kvar.plots.ticks import size_axis

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["variance_against_size"]


def variance_against_size(
    frame: pd.DataFrame,
    *,
    statistic: str = "trace",
    group: str = "all",
    step: int | str = "last",
    width: float = COLUMN_WIDTH,
    ax: Axes | None = None,
) -> Axes:
    """A statistic, tr Cov(g) of theory.md eq. (8) unless told, against the student's parameters: one line a K.

    With ``statistic="trace_ratio"`` flat lines say that the effect of K does not depend on size (theory.md section 6).

    Args:
        frame: a statistics frame with the statistic.
        statistic: a name of ``kvar.plots.STATISTICS``.
        group: parameter group.
        step: training step, or "last".
        width: inches of a fresh figure.
        ax: axes to draw on instead of a fresh figure.

    Returns:
        The axes.

    Raises:
        ValueError: the frame is empty or lacks a column or the statistic; the message names it.
    """
    measured = select(frame, statistic, group=group, step=step)
    kernels = list(dict.fromkeys(measured.sort_values("k", kind="stable")["kernel"]))
    with context():
        ax = new_axes(ax, width=width)
        size_axis(ax, measured["parameters"])
        for i, look in enumerate(series(kernels)):
            rows = measured[measured["kernel"] == look.label].sort_values("parameters")
            x = rows["parameters"].to_numpy(dtype=float) * 1.025 ** (i - (len(kernels) - 1) / 2)
            draw_line(ax, x, rows, look, gid=f"measured:{look.label}")
        log_if_positive(ax, measured)
        ax.set_ylabel(STATISTICS.get(statistic, statistic).split(", eq.")[0].split(", never")[0])
        legend_above(ax)
    return ax
