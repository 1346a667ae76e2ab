"""Did the instrument know: efficiency at the start against what training gained."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.acting.cells import METHODS, Results, label, over
from figures.acting.knew import GAINS, PREDICTORS, gains, predictors, ranked
from figures.acting.pictures import FAMILIES, look
from kvar.intervals import number
from kvar.plots.parts.style import DOUBLE_WIDTH, OKABE_ITO, context

SHORT = {
    "gain in J": (OKABE_ITO[0], "o"),
    "gain in greedy score": (OKABE_ITO[2], "s"),
    "gain in J_kl": (OKABE_ITO[3], "D"),
    "gain in J at the score's rate": (OKABE_ITO[5], "v"),
}


ROWS = {
    "efficiency toward J": "efficiency of one step",
    "efficiency toward J, whole run": "efficiency of the run",
}


def knew(results: Results) -> Figure | None:
    """Methods' efficiency toward J, of a step and of a run, against their gain; then all correlations."""
    measured, realised = predictors(results), gains(results, "J", "J")
    ranks = {name: ranked(measured[name], realised, draws=200) for name in ROWS}
    if any(one is None for one in ranks.values()):
        return None
    with context():
        made = Figure(figsize=(DOUBLE_WIDTH, 5.2), layout="constrained")
        columns = len(results.tasks)
        grid = made.add_gridspec(len(ROWS), columns + 1, width_ratios=[*([1.0] * columns), 0.95])
        drawn: dict[str, None] = {}
        for row, (name, words) in enumerate(ROWS.items()):
            for column, task in enumerate(results.tasks):
                ax = made.add_subplot(grid[row, column])
                drawn |= dict.fromkeys(against(ax, measured[name], realised, task))
                rho = ranks[name].rho  # type: ignore[union-attr]
                mean = rho[[t == task for t, _ in rho.index]].mean()
                ax.set_title(f"{task if row == 0 else ''}\nmean rank correlation {number(mean)}".strip())
                ax.set_xlabel(words)
                if column == 0:
                    ax.set_ylabel("gain in J after 150 steps")
        correlations(made.add_subplot(grid[:, columns]), results)
        handles = [Line2D([], [], **look(m), linestyle="none", label=label(m)) for m in drawn]
        made.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=6.5, columnspacing=1.0)
    return made


def against(ax: Axes, measured: pd.DataFrame, realised: pd.DataFrame, task: str) -> list[str]:
    """Draw a task's methods, means over seeds with t intervals, and name them."""
    there = []
    for method in realised:
        both = measured[[method]].join(realised[[method]], rsuffix=" gain", how="inner").dropna()
        both = both[[t == task for t, _ in both.index]]
        if not len(both):
            continue
        x, y = over(both.iloc[:, 0]), over(both.iloc[:, 1])
        colour = FAMILIES[METHODS[method][1]]
        ax.hlines(y.value, x.low, x.high, color=colour, linewidth=0.6, alpha=0.6)
        ax.vlines(x.value, y.low, y.high, color=colour, linewidth=0.6, alpha=0.6)
        ax.plot(x.value, y.value, **look(method), linestyle="none")
        there.append(method)
    return there


def correlations(ax: Axes, results: Results) -> None:
    """Mean rank correlation of every statistic at the start with every gain, and its range over tasks and seeds."""
    for place, (gain, (quantity, by)) in enumerate(GAINS.items()):
        measured = predictors(results, by=by)
        realised, (colour, mark) = gains(results, quantity, by), SHORT[gain]
        ax.plot([], [], mark, color=colour, markersize=3.4, label=gain.removeprefix("gain in "))
        for y, name in enumerate(reversed(PREDICTORS)):
            one = ranked(measured[name], realised, draws=10)
            if one is None:
                continue
            at = y + 0.2 * (1.5 - place)
            ax.hlines(at, one.rho.min(), one.rho.max(), color=colour, linewidth=1.2)
            ax.plot(one.rho.mean(), at, mark, color=colour, markersize=3.4)
    ax.axvline(0, color="0.6", linewidth=0.7, zorder=0)
    ax.set_xlim(-1.02, 1.02)
    ax.set_ylim(-0.6, len(PREDICTORS) - 0.4)
    ax.set_yticks(range(len(PREDICTORS)), [n.replace("efficiency toward", "toward") for n in reversed(PREDICTORS)])
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("rank correlation")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=6, ncols=2, columnspacing=0.6, handletextpad=0.1)
