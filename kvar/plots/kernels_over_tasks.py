"""Figure: variance, bias, error and efficiency against K, a column a task, seeds combined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from kvar.analysis.frames.statistics_frame import need_columns
from kvar.analysis.statistic_table import TABLE
from kvar.plots.parts.draw import by_student, draw_line, fit_log, zero_line
from kvar.plots.parts.panels import legend_below, new_panels, settle
from kvar.plots.parts.style import DOUBLE_WIDTH, context, student_series
from kvar.plots.parts.ticks import k_axis

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["PANELS", "kernels_over_tasks"]

PANELS = {
    "trace_ratio": "variance over\nthat of K = 1",
    "bias_in_noise": "squared bias over\nnoise of K = 1",
    "mse_in_noise": "squared error over\nnoise of K = 1",
    "efficiency": "efficiency η",
}
"""Statistics, one a row of panels, and their labels; the noise of K = 1 is its tr Cov(g) / B, a step's in (10)."""


def kernels_over_tasks(
    frame: pd.DataFrame, *, statistics: Mapping[str, str] = PANELS, width: float = DOUBLE_WIDTH
) -> Figure:
    """Statistics of every kernel that has a K, against K: a row a statistic, a column a task, a line a student.

    Bars are the frame's own intervals: of :func:`kvar.analysis.across_seeds`, t intervals over seeds. Axes are fitted
    to the values; an interval that is wider runs off.

    Args:
        frame: one row a task, student, kernel and statistic: the columns of ``kvar.plots.COLUMNS`` and "task", at one
            measurement of each student.
        statistics: name -> label of those to draw; rows of panels without any value are left out.
        width: inches.

    Raises:
        ValueError: a column is missing, two rows for one point, or no value of any of the statistics.
    """
    columns = ("task", "student", "parameters", "kernel", "k", "statistic", "value", "low", "high")
    need_columns(frame, columns, "frame of kernels")
    rows = frame[frame["k"].notna() & frame["value"].notna() & frame["statistic"].isin(list(statistics))]
    if "group" in rows:
        rows = rows[rows["group"] == "all"]
    if not len(rows):
        raise ValueError(f"the frame of kernels has no value of {', '.join(statistics)}.")
    if bool(rows.duplicated(["task", "student", "k", "statistic"]).any()):
        raise ValueError("the frame of kernels has two rows for one point: combine seeds and choose one step first.")
    tasks = [str(task) for task in rows["task"].unique()]
    shown = [name for name in statistics if name in set(rows["statistic"])]
    looks = student_series(rows)
    with context():
        figure, axes = new_panels(len(shown), len(tasks), width=width, height=1.45, sharex="col")
        for i, statistic in enumerate(shown):
            axes[i, 0].set_ylabel(statistics[statistic])
            for j, task in enumerate(tasks):
                ax = axes[i, j]
                panel = rows[(rows["task"] == task) & (rows["statistic"] == statistic)]
                if not len(panel):
                    ax.set_axis_off()
                    continue
                places = k_axis(ax, rows[rows["task"] == task]["k"], label="K" if i == len(shown) - 1 else "")
                for student, look, line, x in by_student(looks, panel.sort_values("k"), places, 0.1):
                    draw_line(ax, x, line, look, gid=f"{statistic}:{task}:{student}")
                values = panel["value"].to_numpy(dtype=float)
                if statistic in TABLE and TABLE[statistic].log and (values > 0).all():
                    fit_log(ax, values)
                else:
                    zero_line(ax)
                    low, high = min(0.0, values.min()), max(0.0, values.max())
                    pad = 0.25 * ((high - low) or 1.0)
                    ax.set_ylim(low - pad, high + pad)
                if i == 0:
                    ax.set_title(task)
        legend_below(figure, [ax for ax in np.ravel(axes)])
        settle(figure)
    return figure
