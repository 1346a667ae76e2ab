"""Figure: where in the network the gradient varies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvar.analysis.frames.statistics_frame import at_step, check_frame, students
from kvar.analysis.statistic_table import label_of
from kvar.plots.parts.draw import dodge, draw_intervals, ends_of, log_if_positive
from kvar.plots.parts.style import COLUMN_WIDTH, context, legend_above, new_axes, series, student_series

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["variance_by_layer"]


def variance_by_layer(
    frame: pd.DataFrame,
    *,
    statistic: str = "trace",
    student: str | None = None,
    step: int | str = "last",
    width: float = COLUMN_WIDTH,
    ax: Axes | None = None,
) -> Axes:
    """A statistic, tr Cov(g) of theory.md eq. (8) unless told, of every layer of one student: a row a layer.

    Layers stand in the order of the frame, first on top, "all" parameters last; one marker a K with its interval. With
    ``statistic="trace_ratio"`` a vertical stack of markers says that K acts alike in all layers.

    Args:
        frame: a statistics frame with parameter groups, as ``kvar.gradients.layer_groups`` makes them.
        statistic: a name of ``kvar.plots.STATISTICS``.
        student: its name; by default the largest that has groups.
        step: training step, or "last".
        width: inches of a fresh figure.
        ax: axes to draw on instead of a fresh figure.

    Raises:
        ValueError: the frame is empty or lacks a column, the statistic, the student or groups; the message names it.
    """
    check_frame(frame)
    rows = frame[(frame["statistic"] == statistic) & frame["value"].notna() & frame["k"].notna()]
    layered = set(rows[rows["group"] != "all"]["student"])
    names = [name for name in students(frame) if name in layered]
    if not names:
        measured = ", ".join(sorted(map(str, frame["statistic"].unique())))
        raise ValueError(
            f"the statistics frame has no {statistic!r} of a parameter group beside 'all'; probe with "
            f"groups=kvar.gradients.layer_groups(student). Its statistics: {measured}."
        )
    if student is not None and student not in names:
        raise ValueError(f"no layers of student {student!r}; students with layers: {', '.join(names)}.")
    name = student or names[-1]
    rows = at_step(rows[rows["student"] == name], step)
    layers = sorted(rows["group"].unique(), key=lambda group: group == "all")
    rows = rows.assign(layer=rows["group"].map(layers.index).astype(float)).sort_values("layer", kind="stable")
    kernels = list(dict.fromkeys(rows.sort_values("k", kind="stable")["kernel"]))
    with context():
        ax = new_axes(ax, width=width, ratio=min(1.5, 0.42 + 0.085 * len(layers)))
        for i, look in enumerate(series(kernels)):
            line = rows[rows["kernel"] == look.label]
            y = line["layer"].to_numpy() + dodge(i, len(kernels), 0.7 / len(kernels))
            value, low, high = ends_of(line)
            gid = f"measured:{look.label}"
            ax.plot(
                value, y, color=look.colour, marker=look.marker, markersize=3.6, linestyle="none", label=look.label,
                gid=gid, zorder=3,
            )  # fmt: skip
            draw_intervals(ax, y, low, high, gid=f"{gid}:interval", flat=True, color=look.colour, linewidth=1.0)
        log_if_positive(ax, rows, axis="x")
        for border in range(len(layers) - 1):
            ax.axhline(border + 0.5, color="0.9", linewidth=0.6, zorder=0)
        ax.set_yticks(range(len(layers)), layers)
        ax.set_ylim(len(layers) - 0.5, -0.5)
        ax.set_xlabel(label_of(statistic))
        legend_above(ax, title=f"student {student_series(frame)[name].label}", short=True)
    return ax
