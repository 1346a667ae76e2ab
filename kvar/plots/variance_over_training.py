"""Figure: a statistic of the gradient as training goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from kvar.analysis.frames.statistics_frame import select
from kvar.analysis.statistic_table import TABLE, label_of
from kvar.estimators import TRAINED
from kvar.plots.parts.draw import draw_band, draw_line, log_if_positive, zero_line
from kvar.plots.parts.style import COLUMN_WIDTH, LINES, context, legend_above, new_axes, series, student_series

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["variance_over_training"]


def variance_over_training(
    frame: pd.DataFrame,
    *,
    statistic: str = "trace",
    student: str | None = None,
    kernels: Sequence[str] | None = None,
    group: str = "all",
    width: float = COLUMN_WIDTH,
    ax: Axes | None = None,
) -> Axes:
    """A statistic, tr Cov(g) of theory.md eq. (8) unless told, against the training step, intervals as bands.

    One student: one line a kernel. Several: colour is the student and line style the kernel, and only the two extreme
    K are drawn unless ``kernels`` says which. Of several seeds pass ``kvar.analysis.across_seeds``' frame: its bands
    are the seeds' intervals.

    Args:
        frame: a statistics frame with the statistic at one or more steps.
        statistic: a name of ``kvar.plots.STATISTICS``.
        student: draw this one only.
        kernels: names of the kernels to draw; by default all with a common scale, :func:`kvar.estimators.comparable`,
            where the statistic has one.
        group: parameter group.
        width: inches of a fresh figure.
        ax: axes to draw on instead of a fresh figure.

    Raises:
        ValueError: the frame is empty or lacks a column, the statistic, the student or a kernel; the message names it.
    """
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    rows = select(frame, statistic, group=group, step="all", only_k=False)
    if student is not None:
        if student not in set(rows["student"]):
            measured = ", ".join(map(str, rows["student"].unique()))
            raise ValueError(f"the statistics frame has no student {student!r} with {statistic!r}; it has: {measured}.")
        rows = rows[rows["student"] == student]
    names = list(dict.fromkeys(rows.sort_values("k", kind="stable")["kernel"]))
    if kernels is None and statistic in TABLE and TABLE[statistic].scaled:
        names = [name for name in names if name != TRAINED] or names
    several = rows["student"].nunique() > 1
    wanted = list(kernels) if kernels is not None else _extremes(rows, names) if several else names
    absent = [name for name in wanted if name not in names]
    if absent:
        raise ValueError(f"no {statistic!r} of kernel {', '.join(absent)}; measured kernels: {', '.join(names)}.")
    rows = rows[rows["kernel"].isin(wanted)]
    by_student = student_series(frame, rows)
    by_kernel = dict(zip(wanted, series(wanted), strict=True))
    with context():
        ax = new_axes(ax, width=width)
        for name, colour in by_student.items():
            for i, kernel in enumerate(wanted):
                line = rows[(rows["student"] == name) & (rows["kernel"] == kernel)].sort_values("step")
                if not len(line):
                    continue
                look = replace(colour, label=f"{colour.label}, {kernel}", line=LINES[i % len(LINES)])
                x = line["step"].to_numpy(dtype=float)
                gid = f"measured:{name}:{kernel}"
                look = look if several else by_kernel[kernel]
                draw_band(ax, x, line, look, gid=gid)
                draw_line(ax, x, line.assign(low=np.nan, high=np.nan), look, gid=gid)
        if statistic in TABLE and not TABLE[statistic].log:
            zero_line(ax)
        else:
            log_if_positive(ax, rows)
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.set_xlabel("training step")
        ax.set_ylabel(label_of(statistic))
        handles = [look.handle() for look in by_student.values()]
        styles = [Line2D([], [], color="0.3", linestyle=s.line, label=s.label) for s in by_kernel.values()]
        legend_above(ax, [*handles, *styles] if several else None)
    return ax


def _extremes(rows: pd.DataFrame, names: list[str]) -> list[str]:
    """The kernels of the smallest and the largest K; of those without a K, where no kernel has one, first and last."""
    with_k = set(rows[rows["k"].notna()]["kernel"])
    chosen = [name for name in names if name in with_k] or names
    return chosen if len(chosen) < 3 else [chosen[0], chosen[-1]]
