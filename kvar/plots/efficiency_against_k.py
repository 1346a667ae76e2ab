"""Figure: which K points best."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kvar.plots.draw import dodge, draw_line
from kvar.plots.frame import find, select
from kvar.plots.labels import label_points
from kvar.plots.style import COLUMN_WIDTH, context, legend_above, new_axes, student_series
from kvar.plots.ticks import k_axis

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["efficiency_against_k"]


def efficiency_against_k(
    frame: pd.DataFrame,
    *,
    group: str = "all",
    step: int | str = "last",
    width: float = COLUMN_WIDTH,
    ax: Axes | None = None,
) -> Axes:
    """Efficiency eta, theory.md eq. (11'), against K: one line a student, intervals, the most likely best K ringed.

    The text at a ring is the probability that this K is the best, where ``best_probability`` was measured.

    Args:
        frame: a statistics frame with ``efficiency``.
        group: parameter group.
        step: training step, or "last".
        width: inches of a fresh figure.
        ax: axes to draw on instead of a fresh figure.

    Returns:
        The axes.

    Raises:
        ValueError: the frame is empty or lacks a column or the statistic; the message names it.
    """
    from matplotlib.lines import Line2D

    measured = select(frame, "efficiency", group=group, step=step)
    probability = find(frame, "best_probability", group=group, step=step)
    chances = dict(
        zip(zip(probability["student"], probability["kernel"], strict=True), probability["value"], strict=True)
    )
    looks = {name: look for name, look in student_series(frame).items() if name in set(measured["student"])}
    with context():
        ax = new_axes(ax, width=width)
        places = k_axis(ax, measured["k"])
        handles, points, paths = [], [], []
        for i, (name, look) in enumerate(looks.items()):
            rows = measured[measured["student"] == name]
            x = rows["k"].map(places).to_numpy(dtype=float) + dodge(i, len(looks), 0.12)
            y = rows["value"].to_numpy(dtype=float)
            handles.append(draw_line(ax, x, rows, look, gid=f"measured:{name}"))
            likely = [chances.get((name, kernel), 0.0) for kernel in rows["kernel"]]
            best = max(zip(likely, y, range(len(y)), strict=True))[2]
            ax.plot(
                x[best], y[best], marker="o", markersize=9.5, markerfacecolor="none", markeredgecolor=look.colour,
                markeredgewidth=1.0, linestyle="none", gid=f"best:{name}", zorder=4,
            )  # fmt: skip
            row = rows.iloc[best]
            chance = chances.get((row["student"], row["kernel"]))
            if chance is not None:
                points.append((float(x[best]), float(y[best]), f"p={chance:.2f}", look.colour))
            paths.append(np.column_stack([x, y]))
            ends = rows[["low", "high"]].to_numpy(dtype=float)
            paths += [np.array([[a, low], [a, high]]) for a, (low, high) in zip(x, ends, strict=True)]
        ax.axhline(0.0, color="0.7", linewidth=0.7, zorder=0, gid="zero")
        ax.margins(y=0.12)
        ax.set_ylabel("efficiency η")
        ring = Line2D(
            [], [], marker="o", markersize=7, markerfacecolor="none", markeredgecolor="0.3", linestyle="none",
            label="best K",
        )  # fmt: skip
        legend_above(ax, [*handles, ring])
        label_points(ax, points, paths, gap=5.0)
    return ax
