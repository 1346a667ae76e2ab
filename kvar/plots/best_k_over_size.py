"""Figure: which K points best, by size of the student."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kvar.analysis.frames.statistics_frame import need_columns
from kvar.plots.parts.panels import legend_below, new_panels, settle
from kvar.plots.parts.style import DOUBLE_WIDTH, OKABE_ITO, context
from kvar.plots.parts.ticks import compact_count, k_label, k_positions

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["best_k_over_size"]

_AREA = 130.0


def best_k_over_size(chances: pd.DataFrame, *, width: float = DOUBLE_WIDTH) -> Figure:
    """How likely each K is the best, against the student's parameters: a panel a task.

    A disc's area is the probability; the discs of one student and occasion add up to one. Occasions (at the start,
    after a method) stand side by side in different colours.

    Args:
        chances: task, student, parameters, when, k, probability; one row a student, occasion and K.
        width: inches.

    Raises:
        ValueError: a column is missing, or no probability is known.
    """
    from matplotlib.lines import Line2D

    need_columns(chances, ("task", "student", "parameters", "when", "k", "probability"), "frame of best K")
    rows = chances.dropna(subset=["probability", "k", "parameters"])
    if not len(rows):
        raise ValueError("no probability of a best K is known: it takes two seeds with resolved efficiencies.")
    tasks = [str(task) for task in rows["task"].unique()]
    occasions = [str(when) for when in rows["when"].unique()]
    places = k_positions(rows["k"])
    with context():
        figure, axes = new_panels(1, len(tasks), width=width, height=2.1, sharey=True)
        for task, ax in zip(tasks, axes[0], strict=True):
            panel = rows[rows["task"] == task]
            sizes = panel.groupby("student")["parameters"].max().sort_values()
            at = {student: float(i) for i, student in enumerate(sizes.index)}
            for w, when in enumerate(occasions):
                part = panel[panel["when"] == when]
                x = part["student"].map(at).to_numpy(dtype=float) + 0.3 * (w - (len(occasions) - 1) / 2)
                ax.scatter(
                    x, part["k"].map(places), s=_AREA * part["probability"].to_numpy(dtype=float),
                    color=OKABE_ITO[w % len(OKABE_ITO)], alpha=0.8, linewidths=0, gid=f"{task}:{when}",
                )  # fmt: skip
            ax.set_xticks(list(at.values()), [f"{name}\n{compact_count(float(sizes[name]))}" for name in at])
            ax.set_xlim(-0.6, len(at) - 0.4)
            ax.set_yticks(list(places.values()), [k_label(k) for k in places])
            ax.set_ylim(min(places.values()) - 0.6, max(places.values()) + 0.6)
            ax.grid(axis="y", color="0.92", linewidth=0.6)
            ax.set_axisbelow(True)
            ax.set_title(task)
        axes[0, 0].set_ylabel("K")
        handles = [
            Line2D([], [], marker="o", linestyle="none", color=OKABE_ITO[w % len(OKABE_ITO)], label=when)
            for w, when in enumerate(occasions)
        ]
        size = np.sqrt(_AREA)
        handles.append(
            Line2D([], [], marker="o", linestyle="none", color="0.5", markersize=size, label="probability 1")
        )
        legend_below(figure, axes[0].tolist(), handles)
        settle(figure)
    return figure
