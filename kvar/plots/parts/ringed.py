"""One line a student against K, the most likely best K ringed with its probability."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from kvar.analysis.frames.statistics_frame import find, select
from kvar.plots.parts.draw import dodge, draw_line, log_if_positive
from kvar.plots.parts.labels import label_points
from kvar.plots.parts.levels import draw_levels, levels
from kvar.plots.parts.style import context, legend_above, new_axes, student_series
from kvar.plots.parts.ticks import k_axis

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["ringed_against_k"]


def ringed_against_k(
    frame: pd.DataFrame,
    statistic: str,
    probability: str,
    label: str,
    *,
    smallest: bool,
    log: bool,
    group: str,
    step: int | str,
    width: float,
    ax: Axes | None,
) -> Axes:
    """Draw ``statistic`` against K with intervals; see the figures that call it.

    Of a lone student, estimators with a reward of their own are level lines.

    Args:
        frame: a statistics frame.
        statistic: what is drawn.
        probability: the statistic that says how likely each estimator is the best; may be missing, and the ring then
            stands at the best value. One that is no K and likelier than any is named beside the ring.
        label: of the value axis.
        smallest: whether the best is the smallest.
        log: a logarithmic axis where all values are positive.
        group: parameter group.
        step: training step, or "last".
        width: inches of a fresh figure.
        ax: axes to draw on instead of a fresh figure.
    """
    from matplotlib.lines import Line2D

    measured = select(frame, statistic, group=group, step=step)
    likely = find(frame, probability, group=group, step=step, only_k=False)
    chances = dict(zip(zip(likely["student"], likely["kernel"], strict=True), likely["value"], strict=True))
    level = levels(frame, statistic, group=group, step=step, smallest=smallest)
    drawn = set(level["kernel"])
    looks = {name: look for name, look in student_series(frame).items() if name in set(measured["student"])}
    with context():
        ax = new_axes(ax, width=width)
        places = k_axis(ax, measured["k"])
        handles, points, paths = [], [], []
        for i, (name, look) in enumerate(looks.items()):
            rows = measured[measured["student"] == name]
            x = rows["k"].map(places).to_numpy(dtype=float) + dodge(i, len(looks), min(0.12, 0.5 / len(looks)))
            y = rows["value"].to_numpy(dtype=float)
            handles.append(draw_line(ax, x, rows, look, gid=f"measured:{name}"))
            own = [chances.get((name, kernel), 0.0) for kernel in rows["kernel"]]
            best = max(zip(own, -y if smallest else y, range(len(y)), strict=True))[2]
            ax.plot(
                x[best], y[best], marker="o", markersize=9.5, markerfacecolor="none", markeredgecolor=look.colour,
                markeredgewidth=1.0, linestyle="none", gid=f"best:{name}", zorder=4,
            )  # fmt: skip
            chance = chances.get((name, rows.iloc[best]["kernel"]))
            if chance is not None:
                points.append((float(x[best]), float(y[best]), _chance(name, chance, chances, drawn), look.colour))
            paths.append(np.column_stack([x, y]))
            ends = rows[["low", "high"]].to_numpy(dtype=float)
            paths += [np.array([[a, low], [a, high]]) for a, (low, high) in zip(x, ends, strict=True)]
        if not (log and log_if_positive(ax, measured)):
            if not log:
                ax.axhline(0.0, color="0.7", linewidth=0.7, zorder=0, gid="zero")
            ax.margins(y=0.12)
        ax.set_ylabel(label)
        ring = Line2D(
            [], [], marker="o", markersize=7, markerfacecolor="none", markeredgecolor="0.3", linestyle="none",
            label="best K",
        )  # fmt: skip
        legend_above(ax, [*handles, ring])
        label_points(ax, points, paths, gap=5.0)
        draw_levels(ax, level, {kernel: chance for (_, kernel), chance in chances.items()})
    return ax


def _chance(student: str, ringed: float, chances: Mapping[tuple[str, str], float], drawn: Collection[str]) -> str:
    """What stands at a ring: the probability of its K, and an estimator that is likelier to be the best.

    One that is ``drawn`` as a level line has its probability there.
    """
    own = {kernel: chance for (name, kernel), chance in chances.items() if name == student and kernel not in drawn}
    first = max(own, key=own.__getitem__)
    return f"p={ringed:.2f}" if own[first] <= ringed else f"p={ringed:.2f} ({first}: {own[first]:.2f})"
