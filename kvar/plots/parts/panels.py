"""A grid of axes for figures with a panel a task, a student or a statistic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kvar.plots.parts.ticks import compact_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["legend_below", "need_columns", "new_panels", "panel_title", "settle"]


def new_panels(
    rows: int, columns: int, *, width: float, height: float, sharex: Any = False, sharey: Any = False
) -> tuple[Figure, np.ndarray]:
    """A fresh figure that belongs to no window system, and its (rows, columns) axes.

    Args:
        rows: of panels.
        columns: of panels.
        width: inches of the figure.
        height: inches of one row.
        sharex: as ``Figure.subplots``.
        sharey: as ``Figure.subplots``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 0.45 + height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, sharex=sharex, sharey=sharey, squeeze=False)


def legend_below(figure: Figure, axes: Sequence[Axes], handles: Sequence[Any] | None = None) -> None:
    """One legend for all panels, under them: every label once, in order of first appearance."""
    found: dict[str, Any] = {}
    for handle in handles if handles is not None else [h for ax in axes for h in ax.get_legend_handles_labels()[0]]:
        found.setdefault(str(handle.get_label()), handle)
    if not found:
        return
    longest = max(map(len, found))
    columns = max(1, min(len(found), int(figure.get_figwidth() * 72 // (3.7 * longest + 34))))
    figure.legend(
        handles=list(found.values()), loc="outside lower left", ncols=columns, columnspacing=1.0, handletextpad=0.5
    ).set_gid("legend")


def panel_title(task: object, student: object, parameters: float) -> str:
    """Task, student and its parameter count.

    >>> panel_title("sums", "small", 51_728.0), panel_title("", "small", float("nan"))
    ('sums, small (52k)', 'small')
    """
    count = f" ({compact_count(parameters)})" if parameters == parameters else ""
    return f"{task}, {student}{count}".removeprefix(", ")


def settle(figure: Figure) -> None:
    """Lay the figure out for good: what is drawn or saved afterwards finds the panels where they are."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def need_columns(frame: Any, columns: Sequence[str], what: str) -> None:
    """Refuse a frame that lacks a column or has no row.

    Raises:
        ValueError: naming the columns and what the frame is.
    """
    missing = [name for name in columns if name not in getattr(frame, "columns", ())]
    if missing:
        raise ValueError(f"the frame of {what} lacks {', '.join(missing)}; it needs {', '.join(columns)}.")
    if not len(frame):
        raise ValueError(f"the frame of {what} is empty: there is nothing to draw.")
