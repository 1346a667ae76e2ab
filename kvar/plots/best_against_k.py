"""Figures: which K points best, and which errs least."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kvar.analysis.frames.statistics_frame import find, select
from kvar.analysis.statistic_table import TABLE
from kvar.intervals import candidates
from kvar.plots.parts.draw import by_student, draw_line, ends_of, log_if_positive, zero_line
from kvar.plots.parts.labels import label_points
from kvar.plots.parts.levels import draw_levels, levels
from kvar.plots.parts.style import COLUMN_WIDTH, context, legend_above, new_axes, student_series
from kvar.plots.parts.ticks import k_axis

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["efficiency_against_k", "mse_against_k"]


MOST_LETTERS = 12
"""Longest name of an estimator beside a point; a longer one would push the axes aside."""


def efficiency_against_k(
    frame: pd.DataFrame,
    *,
    group: str = "all",
    step: int | str = "last",
    width: float = COLUMN_WIDTH,
    ax: Axes | None = None,
) -> Axes:
    """Efficiency eta, theory.md eq. (11'), against K: one line a student, intervals, the most likely best K ringed.

    The text at a ring is the probability that this K is the best, where ``best_probability`` was measured;
    an estimator with a baseline that is likelier than any K is named there too.

    Args:
        frame: a statistics frame with ``efficiency``.
        group: parameter group.
        step: training step, or "last".
        width: inches of a fresh figure.
        ax: axes to draw on instead of a fresh figure.

    Raises:
        ValueError: the frame is empty or lacks a column or the statistic; the message names it.
    """
    return _ringed(frame, "efficiency", "best_probability", group, step, width, ax)


def mse_against_k(
    frame: pd.DataFrame,
    *,
    group: str = "all",
    step: int | str = "last",
    width: float = COLUMN_WIDTH,
    ax: Axes | None = None,
) -> Axes:
    """Mean squared error of a step's gradient, theory.md eq. (10), against K: what plain SGD at a fixed rate feels.

    One line a student, intervals, the most likely best K ringed, with its probability where ``mse_best_probability``
    was measured. The error is not free of scale; hold :func:`efficiency_against_k` beside it.

    Args:
        frame: a statistics frame with ``mse``.
        group: parameter group.
        step: training step, or "last".
        width: inches of a fresh figure.
        ax: axes to draw on instead of a fresh figure.

    Returns:
        The axes; logarithmic unless an error was estimated below zero.

    Raises:
        ValueError: the frame is empty or lacks a column or the statistic; the message names it.
    """
    return _ringed(frame, "mse", "mse_best_probability", group, step, width, ax)


def _ringed(
    frame: pd.DataFrame, statistic: str, probability: str, group: str, step: int | str, width: float, ax: Axes | None
) -> Axes:
    """A statistic against K; the ring stands at the likeliest best K, or without probabilities at the best value.

    A student's line has no ring where every estimator that may be the best (``kvar.intervals.candidates``) has no K.

    Of a lone student, estimators with a reward of their own are level lines.
    """
    from matplotlib.lines import Line2D

    measured = select(frame, statistic, group=group, step=step)
    likely = find(frame, probability, group=group, step=step, only_k=False)
    chances: dict[Any, float] = likely.set_index(["student", "kernel"])["value"].to_dict()
    looks, facts = student_series(frame, measured), TABLE[statistic]
    level = levels(frame, statistic, group=group, step=step, smallest=facts.sign < 0)
    drawn = set(level["kernel"])
    ring: dict[str, Any] = {"marker": "o", "markerfacecolor": "none", "linestyle": "none"}
    with context():
        ax = new_axes(ax, width=width)
        handles, points, paths, rings = [], [], [], 0
        for name, look, rows, x in by_student(looks, measured, k_axis(ax, measured["k"]), min(0.12, 0.5 / len(looks))):
            y, low, high = ends_of(rows)
            handles.append(draw_line(ax, x, rows, look, gid=f"measured:{name}"))
            kernels = list(rows["kernel"])
            paths.append(np.column_stack([x, y]))
            paths += [np.array([[at, a], [at, b]]) for at, a, b in zip(x, low, high, strict=True)]
            known = {kernel: p for (student, kernel), p in chances.items() if student == name}
            if known and not set(candidates(known)) & set(kernels):
                continue  # the best is surely no K
            rings += 1
            best = max(range(len(y)), key=lambda e: (chances.get((name, kernels[e]), 0.0), facts.sign * y[e], e))
            ax.plot(
                x[best], y[best], **ring, markersize=9.5, markeredgecolor=look.colour, markeredgewidth=1.0,
                gid=f"best:{name}", zorder=4,
            )  # fmt: skip
            if (name, kernels[best]) in chances:
                points.append((x[best], y[best], _chance(name, kernels[best], chances, drawn), look.colour))
        if not facts.log:
            zero_line(ax)
        if not facts.log or not log_if_positive(ax, measured):
            ax.margins(y=0.12)
        ax.set_ylabel(facts.label)
        if rings:
            handles.append(Line2D([], [], **ring, markersize=7, markeredgecolor="0.3", label="best K"))
        legend_above(ax, handles)
        label_points(ax, points, paths, gap=5.0)
        draw_levels(ax, level, {kernel: chance for (_, kernel), chance in chances.items()})
    return ax


def _chance(student: str, ringed: str, chances: Mapping[tuple[str, str], float], drawn: Collection[str]) -> str:
    """What stands at a ring: the probability of its K, and an estimator that is likelier to be the best.

    One that is ``drawn`` as a level line has its probability there.
    """
    rivals = {kernel: p for (name, kernel), p in chances.items() if name == student and kernel not in drawn}
    first, p = max(rivals, key=rivals.__getitem__), rivals[ringed]
    shown = first if len(first) <= MOST_LETTERS else "another"
    return f"p={p:.2f}" + (f" ({shown}: {rivals[first]:.2f})" if rivals[first] > p else "")
