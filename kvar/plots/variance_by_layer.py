"""Figure: where in the network the gradient varies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kvar.analysis.frames.statistics_frame import at_step, check_frame, select, students
from kvar.analysis.statistic_table import MEANINGS
from kvar.plots.parts.draw import dodge, fit_log
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

    Returns:
        The axes.

    Raises:
        ValueError: the frame is empty or lacks a column, the statistic, the student or groups; the message names it.
    """
    check_frame(frame)
    grouped = frame[(frame["group"] != "all") & (frame["statistic"] == statistic) & frame["value"].notna()]
    there = [name for name in students(frame) if name in set(grouped["student"])]
    if not there:
        have = ", ".join(sorted(map(str, frame["statistic"].unique())))
        raise ValueError(
            f"the statistics frame has no {statistic!r} of a parameter group beside 'all'; probe with "
            f"groups=kvar.gradients.layer_groups(student). Its statistics: {have}."
        )
    if student is not None and student not in there:
        raise ValueError(f"no layers of student {student!r}; students with layers: {', '.join(there)}.")
    name = student or there[-1]
    own = at_step(frame[frame["student"] == name], step)
    layers = [group for group in dict.fromkeys(own["group"]) if group != "all"]
    layers += ["all"] if "all" in set(own["group"]) else []
    rows = {layer: select(own, statistic, group=layer, step="all") for layer in layers}
    kernels = list(dict.fromkeys(rows[layers[0]].sort_values("k", kind="stable")["kernel"]))
    looks = dict(zip(kernels, series(kernels), strict=True))
    with context():
        ax = new_axes(ax, width=width, ratio=min(1.5, 0.42 + 0.085 * len(layers)))
        numbers: dict[str, list[float]] = {"value": [], "low": [], "high": []}
        for i, (kernel, look) in enumerate(looks.items()):
            found = [(at, rows[layer][rows[layer]["kernel"] == kernel]) for at, layer in enumerate(layers)]
            y = np.array([at for at, row in found if len(row)]) + dodge(i, len(kernels), 0.7 / len(kernels))
            x = {end: np.array([row[end].iloc[0] for _, row in found if len(row)], dtype=float) for end in numbers}
            ax.plot(
                x["value"], y, color=look.colour, marker=look.marker, markersize=3.6, linestyle="none",
                label=look.label, gid=f"measured:{kernel}", zorder=3,
            )  # fmt: skip
            known = np.isfinite(x["low"]) & np.isfinite(x["high"])
            ax.hlines(y[known], x["low"][known], x["high"][known], color=look.colour, linewidth=1.0).set_gid(
                f"measured:{kernel}:interval"
            )
            for end in numbers:
                numbers[end] += x[end].tolist()
        if min(numbers["value"]) > 0:
            floor = min(numbers["value"]) / 30
            fit_log(ax, numbers["value"], numbers["high"], [v for v in numbers["low"] if v > floor], axis="x")
        else:
            ax.axvline(0.0, color="0.7", linewidth=0.7, zorder=0, gid="zero")
        for border in range(len(layers) - 1):
            ax.axhline(border + 0.5, color="0.9", linewidth=0.6, zorder=0)
        ax.set_yticks(range(len(layers)), layers)
        ax.set_ylim(len(layers) - 0.5, -0.5)
        ax.set_xlabel(MEANINGS.get(statistic, statistic).split(", eq.")[0].split(", never")[0])
        legend_above(ax, title=f"student {student_series(frame)[name].label}", short=True)
    return ax
