"""A grid of axes for figures with a panel a task, a student or a statistic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kvar.plots.parts.ticks import compact_count

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["legend_below", "new_panels", "settle", "student_panels"]


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
    by_label: dict[str, Any] = {}
    for handle in handles if handles is not None else [h for ax in axes for h in ax.get_legend_handles_labels()[0]]:
        by_label.setdefault(str(handle.get_label()), handle)
    if not by_label:
        return
    columns = max(1, min(len(by_label), int(figure.get_figwidth() * 72 // (3.7 * max(map(len, by_label)) + 34))))
    figure.legend(
        handles=list(by_label.values()), loc="outside lower left", ncols=columns, columnspacing=1.0, handletextpad=0.5
    ).set_gid("legend")


def student_panels(
    rows: pd.DataFrame,
    draw: Callable[[Axes, pd.DataFrame, str], None],
    *,
    labels: tuple[str, str],
    width: float,
    height: float,
    sharex: bool = False,
    label_size: float | None = None,
) -> Figure:
    """A row of panels a task, a panel a student, smallest first; one legend for all.

    Args:
        rows: task, student, parameters, and what ``draw`` reads.
        draw: takes the axes, the rows of one task and student, and "TASK:STUDENT".
        labels: of the horizontal axes, and of the vertical ones.
        width: inches of the figure.
        height: inches of one row.
        sharex: as ``Figure.subplots``.
        label_size: of the horizontal axes' labels, in points.
    """
    tasks = [str(task) for task in rows["task"].unique()]
    sizes = rows.groupby("student")["parameters"].max().sort_values()
    figure, axes = new_panels(len(tasks), len(sizes), width=width, height=height, sharex=sharex)
    for i, task in enumerate(tasks):
        axes[i, 0].set_ylabel(labels[1])
        for ax, student in zip(axes[i], sizes.index, strict=True):
            shown = rows[(rows["task"] == task) & (rows["student"] == student)]
            count = f" ({compact_count(shown['parameters'].max())})" if shown["parameters"].notna().any() else ""
            ax.set_title(f"{task}, {student}{count}".removeprefix(", "), fontsize=7.5)
            if i == len(tasks) - 1:
                ax.set_xlabel(labels[0], fontsize=label_size)
            if len(shown):
                draw(ax, shown, f"{task}:{student}")
            else:
                ax.set_axis_off()
    legend_below(figure, axes.ravel().tolist())
    settle(figure)
    return figure


def settle(figure: Figure) -> None:
    """Lay the figure out for good: what is drawn or saved afterwards finds the panels where they are."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
