"""Curves, differences to the best fixed K, and what auto chose."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.acting.cells import CHOSEN, FIXED, LAST, METHODS, OUTCOMES, Results, competitors, label, over
from figures.acting.claims_knew import in_use, kind
from figures.acting.compare import HOW, compare
from kvar.plots.parts.style import DOUBLE_WIDTH, OKABE_ITO, context

FAMILIES = {
    "fixed K": OKABE_ITO[0],
    "other estimators": OKABE_ITO[1],
    "recipe": OKABE_ITO[4],
    "references": OKABE_ITO[2],
    "measured": "black",
}
MARKS = ("o", "s", "^", "D", "v", "P")
PALE: dict[str, Any] = {"color": FAMILIES["fixed K"], "linewidth": 2.4, "alpha": 0.25}
CURVES = {
    "J": ("gain in J", "J"),
    "greedy": ("gain in greedy score", "greedy"),
    "length": ("change of length (tokens)", "J"),
}
"""Quantity -> axis label, and the outcome at whose rate it is drawn."""


def look(method: str) -> dict[str, Any]:
    """Colour by family, marker within it; every second one with a white face."""
    family = METHODS[method][1]
    place = [m for m, (_, other) in METHODS.items() if other == family].index(method)
    face = FAMILIES[family] if place % 2 == 0 else "white"
    return {"color": FAMILIES[family], "marker": MARKS[place], "markersize": 3.6, "markerfacecolor": face}


def curves(results: Results, quantity: str) -> Figure:
    """Change of a quantity from the start against the step: tasks in rows, families in columns, bands over seeds.

    The best fixed K after the last step is drawn pale in every panel, as a line to compare with. References go on to
    450 steps; their column alone has that axis.
    """
    text, by = CURVES[quantity]
    families = [f for f in FAMILIES if any(METHODS[m][1] == f for t in results.tasks for m in results.methods(t, by))]
    with context():
        made = Figure(figsize=(DOUBLE_WIDTH, 1.75 * len(results.tasks) + 0.75), layout="constrained")
        axes = made.subplots(len(results.tasks), len(families), sharey="row", squeeze=False)
        for row, task in zip(axes, results.tasks, strict=True):
            there = results.methods(task, by)
            ends = {m: results.gains(task, m, quantity, by) for m in FIXED if m in there}
            most = max(map(len, ends.values()), default=0)  # as in compare: of those run for most seeds
            best = max((m for m in ends if len(ends[m]) == most), key=lambda m: ends[m].mean(), default=None)
            for ax, family in zip(row, families, strict=True):
                ax.axhline(0, color="0.8", linewidth=0.7, zorder=0)
                own = [m for m in there if METHODS[m][1] == family]
                if best is not None and best not in own and quantity != "length":
                    rows = results.curves(task, best, quantity, by)
                    ax.plot(rows.columns, rows.sub(rows[0], axis=0).mean(), **PALE, zorder=1)
                for method in own:
                    rows = results.curves(task, method, quantity, by)
                    change = rows.sub(rows[0], axis=0)
                    ax.plot(change.columns, change.mean(), **look(method), linewidth=1.0, zorder=3)
                    spread = [over(change[step]) for step in change]
                    if all(x.known for x in spread[1:]):
                        low, high = ([0.0, *(getattr(x, end) for x in spread[1:])] for end in ("low", "high"))
                        ax.fill_between(change.columns, low, high, color=FAMILIES[family], alpha=0.1, linewidth=0)
                ax.set_xticks([0, 150, 300, 450] if family == "references" else [0, 50, 100, 150])
                if ax in axes[0]:
                    ax.set_title(family)
            row[0].set_ylabel(f"{task}\n{text}")
        for ax in axes[-1]:
            ax.set_xlabel("step")
        for place, family in enumerate(families):
            drawn = [m for m, (_, other) in METHODS.items() if other == family]
            drawn = [m for m in drawn if any(m in results.methods(t, by) for t in results.tasks)]
            handles = [Line2D([], [], **look(m), linewidth=1.0, label=label(m)) for m in drawn]
            if family != "fixed K" and quantity != "length":
                handles.append(Line2D([], [], **PALE, label="best fixed K"))
            axes[-1][place].legend(
                handles=handles, loc="upper center", bbox_to_anchor=(0.45, -0.32), fontsize=6, handlelength=1.8,
                handletextpad=0.4, labelspacing=0.25,
            )  # fmt: skip
    return made


def forest(results: Results) -> Figure | None:
    """Every method less the best fixed K, at equal samples and equal wall time: outcomes and tasks in columns.

    The methods of A6 and A7, which were added, stand below those of A1.
    """
    competing = competitors(results)
    shown = [*competing, *(m for m in CHOSEN["run"] if any(m in results.methods(t, "J") for t in results.tasks))]
    panels = [(task, outcome) for outcome in OUTCOMES for task in results.tasks]
    if not competing:
        return None
    confidence = 1 - 0.05 / len(competing)
    with context():
        made = Figure(figsize=(DOUBLE_WIDTH, 0.24 * len(shown) + 1.3), layout="constrained")
        axes = made.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for ax, (task, outcome) in zip(axes, panels, strict=True):
            best, limits = set(), [0.0]
            for y, method in enumerate(reversed(shown)):
                for how, up, filled in (("samples", 0.16, True), ("seconds", -0.16, False)):
                    one = compare(results, task, outcome, method, FIXED, how)
                    if one is None:
                        continue
                    best |= {label(one.best)} if filled else set()
                    x, wide, colour = one.interval(), one.interval(confidence), FAMILIES[METHODS[method][1]]
                    ax.hlines(y + up, wide.low, wide.high, color=colour, linewidth=0.6)
                    ax.hlines(y + up, x.low, x.high, color=colour, linewidth=1.6)
                    ax.plot(x.value, y + up, "o", markersize=3.6, color=colour,
                            markerfacecolor=colour if filled else "white")  # fmt: skip
                    limits += [x.value, *(e for e in (x.low, x.high) if np.isfinite(e))]
            ax.axvline(0, color="0.6", linewidth=0.7, zorder=0)
            pad = 0.06 * (max(limits) - min(limits) or 1)
            ax.set_xlim(min(limits) - pad, max(limits) + pad)
            ax.set_title(f"{task}\n{OUTCOMES[outcome]}")
            ax.set_xlabel("less " + ("\nor ".join(sorted(best)) or "-"), fontsize=7)
            ax.set_yticks(range(len(shown)), [label(m) for m in reversed(shown)])
            ax.tick_params(axis="y", length=0)
            ax.grid(axis="y", color="0.94", linewidth=0.6, zorder=0)
        style = {"color": "0.3", "marker": "o", "markersize": 3.6, "linewidth": 1.6}
        handles = [
            Line2D([], [], **style, markerfacecolor=face, label=text)
            for face, text in zip(("0.3", "white"), HOW.values(), strict=True)
        ]
        bonferroni = f"Bonferroni over {len(competing)} (may run off)"
        handles.append(Line2D([], [], color="0.3", linewidth=0.6, label=bonferroni))
        made.legend(handles=handles, loc="outside upper center", ncols=3)
    return made


def chosen(results: Results) -> Figure | None:
    """Which estimator each run of auto used, step by step: a bar a seed, a mark where it measured.

    Runs are those at the rate for what the method asks for: the greedy score toward the data, else J.
    """
    choices = results.choices
    if not len(choices):
        return None
    kept = [
        (m, t, r, s)
        for m, t, r, s in choices[["method", "task", "rate", "seed"]].drop_duplicates().itertuples(index=False)
        if s and m.startswith("auto") and r == results.rates.get((t, m, "greedy" if m.endswith("data") else "J"))
    ]
    order = {method: place for place, method in enumerate(METHODS)}
    kept.sort(key=lambda k: (order.get(k[0], len(order)), results.tasks.index(k[1]), k[2], k[3]))
    if not kept:
        return None
    colours = palette(choices)
    with context():
        made = Figure(figsize=(DOUBLE_WIDTH, 0.125 * len(kept) + 1.1 + 0.13 * len(colours)), layout="constrained")
        ax = made.subplots()
        for y, (method, task, rate, seed) in enumerate(reversed(kept)):
            run = choices[
                (choices["method"] == method)
                & (choices["task"] == task)
                & (choices["rate"] == rate)
                & (choices["seed"] == seed)
            ].sort_values("step")
            ends = [*run["step"].iloc[1:], LAST]
            for begun, end, name in zip(run["step"], ends, run["estimator"], strict=True):
                ax.barh(y, end - begun, left=begun, height=0.8, color=colours.get(kind(name), "0.85"), linewidth=0)
            ax.plot(run["step"], [y] * len(run), "|", color="white", markersize=4, markeredgewidth=0.8)
        names = [f"{label(m)}, {t}, {r:g}, seed {s}" for m, t, r, s in reversed(kept)]
        ax.set_yticks(range(len(kept)), names, fontsize=5.5)
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(-0.7, len(kept) - 0.3)
        ax.set_xlim(0, LAST)
        ax.set_xlabel("step (white: a measurement)")
        for y, (one, other) in enumerate(zip(reversed(kept[1:]), reversed(kept[:-1]), strict=True)):
            if one[:2] != other[:2]:
                ax.axhline(y + 0.5, color="0.3", linewidth=0.6)
        handles = [Line2D([], [], color=c, linewidth=4, label=name) for name, c in colours.items()]
        if len(set(map(kind, choices["estimator"]))) > len(colours):
            handles.append(Line2D([], [], color="0.85", linewidth=4, label="others"))
        made.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=6)
    return made


def palette(choices: pd.DataFrame) -> dict[str, str]:
    """Estimator -> colour, of the seven longest in use."""
    return dict(zip(in_use(choices).sort_values(ascending=False).index[:7], OKABE_ITO, strict=False))
