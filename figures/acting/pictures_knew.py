"""Did the instrument know: efficiency at the start against what training gained."""

from __future__ import annotations

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


def knew(results: Results) -> Figure | None:
    """A panel a task: each method's efficiency toward J against its gain in J; then every statistic's correlation."""
    measured, realised = predictors(results), gains(results, "J", "J")
    name = "efficiency toward J"
    first = ranked(measured[name], realised, draws=200)
    if first is None:
        return None
    with context():
        made = Figure(figsize=(DOUBLE_WIDTH, 3.3), layout="constrained")
        axes = made.subplots(1, len(results.tasks) + 1, width_ratios=[*([1.0] * len(results.tasks)), 0.95])
        drawn: dict[str, None] = {}
        for ax, task in zip(axes, results.tasks, strict=False):
            for method in realised:
                both = measured[name][[method]].join(realised[[method]], rsuffix=" gain", how="inner").dropna()
                both = both[[t == task for t, _ in both.index]]
                if not len(both):
                    continue
                x, y = over(both.iloc[:, 0]), over(both.iloc[:, 1])
                colour = FAMILIES[METHODS[method][1]]
                ax.hlines(y.value, x.low, x.high, color=colour, linewidth=0.6, alpha=0.6)
                ax.vlines(x.value, y.low, y.high, color=colour, linewidth=0.6, alpha=0.6)
                ax.plot(x.value, y.value, **look(method), linestyle="none")
                drawn[method] = None
            rho = over(first.rho[[t == task for t, _ in first.rho.index]])
            ax.set_title(f"{task}\nmean rank correlation {number(rho.value)}")
            ax.set_xlabel("efficiency toward J at the start")
        axes[0].set_ylabel("gain in J after 150 steps")
        correlations(axes[-1], results)
        handles = [Line2D([], [], **look(m), linestyle="none", label=label(m)) for m in drawn]
        made.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=6.5, columnspacing=1.0)
    return made


def correlations(ax, results: Results) -> None:  # type: ignore[no-untyped-def]
    """Mean rank correlation of every statistic at the start with every gain, t intervals over tasks and seeds."""
    for place, (gain, (quantity, by)) in enumerate(GAINS.items()):
        measured = predictors(results, by=by)
        realised, (colour, mark) = gains(results, quantity, by), SHORT[gain]
        ax.plot([], [], mark, color=colour, markersize=3.4, label=gain.removeprefix("gain in "))
        for y, name in enumerate(reversed(PREDICTORS)):
            one = ranked(measured[name], realised, draws=10)
            if one is None:
                continue
            x, at = over(one.rho), y + 0.2 * (1.5 - place)
            ax.hlines(at, max(x.low, -1), min(x.high, 1), color=colour, linewidth=1.2)
            ax.plot(x.value, at, mark, color=colour, markersize=3.4)
    ax.axvline(0, color="0.6", linewidth=0.7, zorder=0)
    ax.set_xlim(-1.02, 1.02)
    ax.set_ylim(-0.6, len(PREDICTORS) - 0.4)
    ax.set_yticks(range(len(PREDICTORS)), [n.replace("efficiency toward", "toward") for n in reversed(PREDICTORS)])
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("mean rank correlation")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=6, ncols=2, columnspacing=0.6, handletextpad=0.1)
