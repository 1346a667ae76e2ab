"""Figure: how much of the variance is sampling within prompts, and how much differs between prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kvar.analysis.frames.statistics_frame import select
from kvar.plots.parts.draw import by_student, draw_intervals, ends_of
from kvar.plots.parts.style import COLUMN_WIDTH, context, legend_above, new_axes, student_series
from kvar.plots.parts.ticks import k_label

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["within_between_shares"]


def within_between_shares(
    frame: pd.DataFrame,
    *,
    group: str = "all",
    step: int | str = "last",
    width: float = COLUMN_WIDTH,
    ax: Axes | None = None,
) -> Axes:
    """The two parts of tr Cov(g), theory.md eq. (9), as shares: a bar a student and K, its interval at the border.

    The solid part is within prompts, the only part that K or more rollouts can act on; the hatched part is between.
    Shares are unclamped: a bar higher than one means that the part between prompts was estimated below zero.

    Args:
        frame: a statistics frame with ``within_share``.
        group: parameter group.
        step: training step, or "last".
        width: inches of a fresh figure.
        ax: axes to draw on instead of a fresh figure.

    Raises:
        ValueError: the frame is empty or lacks a column or the statistic; the message names it.
    """
    from matplotlib.patches import Patch

    measured = select(frame, "within_share", group=group, step=step)
    ks = sorted(set(measured["k"]))
    places = {k: float(i) for i, k in enumerate(ks)}
    looks = student_series(frame, measured)
    bar = 0.8 / len(looks)
    with context():
        ax = new_axes(ax, width=width)
        for name, look, rows, x in by_student(looks, measured, places, bar):
            share, low, high = ends_of(rows)
            ax.bar(x, share, bar * 0.9, color=look.colour, linewidth=0, label=look.label, gid=f"within:{name}")
            ax.bar(
                x, np.maximum(1 - share, 0.0), bar * 0.9, bottom=share, facecolor="white", edgecolor=look.colour,
                hatch="//////", linewidth=0.5, gid=f"between:{name}",
            )  # fmt: skip
            draw_intervals(ax, x, low, high, gid=f"{name}:interval", color="black", linewidth=0.9)
        ax.set_xticks(list(places.values()), [k_label(k) for k in ks])
        ax.set_xlabel("K")
        top = max(1.0, float(measured[["value", "high"]].max().max()))
        ax.set_ylim(min(0.0, float(measured["value"].min())), 1.02 * top)
        ax.set_ylabel("share of tr Cov(g)")
        patches = [Patch(facecolor=look.colour, label=look.label) for look in looks.values()]
        kinds = [
            Patch(facecolor="0.4", label="within prompts"),
            Patch(facecolor="white", edgecolor="0.4", hatch="//////", linewidth=0.5, label="between prompts"),
        ]
        legend_above(ax, [*patches, *kinds])
    return ax
