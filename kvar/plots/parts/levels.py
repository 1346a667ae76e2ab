"""Estimators that are more than a kernel of the gap, and so have no K: level lines with their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kvar.analysis.frames.statistics_frame import find
from kvar.analysis.frames.summary import kernel_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["MOST", "draw_levels", "levels"]

MOST = 8
"""Lines that a figure holds."""
_SIZE = 6.5
"""Of their names, in points."""


def levels(
    frame: pd.DataFrame, statistic: str, *, group: str, step: int | str, smallest: bool | None = None
) -> pd.DataFrame:
    """The rows to be drawn as lines, of a frame with one student; none where there are several.

    Args:
        frame: a statistics frame.
        statistic: what is drawn.
        group: parameter group.
        step: training step, or "last".
        smallest: whether the smallest are kept where there are more than :data:`MOST`; None for the first.
    """
    rows = find(frame, statistic, group=group, step=step, only_k=False)
    rows = rows[rows["k"].isna() & rows["kernel"].map(lambda name: kernel_of(str(name)) is None)]
    if frame["student"].nunique() > 1:
        return rows.iloc[:0]
    if smallest is not None:
        rows = rows.sort_values("value", ascending=smallest, kind="stable")
    return rows.iloc[:MOST]


def draw_levels(ax: Axes, rows: pd.DataFrame, chances: Mapping[str, float] | None = None) -> None:
    """A dashed line a row, its name at the right end; names that would cover each other are moved up.

    Args:
        ax: axes whose scale is final; the limits are widened to hold all lines.
        rows: of :func:`levels`.
        chances: probabilities to be the best, shown where they are 0.05 or more.
    """
    from matplotlib.patheffects import withStroke

    shown = rows[rows["value"] > 0] if ax.get_yscale() == "log" else rows
    if not len(shown):
        return
    bottom, top = ax.get_ylim()
    least, most = float(shown["value"].min()), float(shown["value"].max())
    if least < bottom or most > top:
        log = ax.get_yscale() == "log"
        room = 1.25 if log else 0.08 * (max(top, most) - min(bottom, least))
        ax.set_ylim(min(bottom, least / room if log else least - room), max(top, most * room if log else most + room))
    for name, value in zip(shown["kernel"], shown["value"], strict=True):
        ax.axhline(value, color="0.45", linestyle=(0, (4, 2)), linewidth=0.8, zorder=1.5, gid=f"level:{name}")
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # for positions
    height = _SIZE * 1.15 * figure.dpi / 72.0
    reached = -float("inf")
    ordered = shown.sort_values("value", kind="stable")
    for name, value in zip(ordered["kernel"].astype(str), ordered["value"], strict=True):
        chance = (chances or {}).get(name, 0.0)
        text = f"{name} (p={chance:.2f})" if chance >= 0.05 else name
        bottom = max(float(ax.transData.transform((0.0, value))[1]) + 0.15 * height, reached)
        reached = bottom + height
        written = ax.annotate(
            text, (0.99, ax.transAxes.inverted().transform((0.0, bottom))[1]), xycoords="axes fraction", ha="right",
            va="bottom", fontsize=_SIZE, color="0.3", zorder=5,
            path_effects=[withStroke(linewidth=1.5, foreground="white", alpha=0.85)],
        )  # fmt: skip
        written.set_in_layout(False)
