"""The three figures."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.estimators.cells import BATCH, METHODS, PAIR, noise, over, reciprocal, wide
from figures.estimators.claims import root
from kvar.plots.parts.style import DOUBLE_WIDTH, OKABE_ITO, context

GROUPS = {
    "K-step returns, sampled": OKABE_ITO[0],
    "sums over the vocabulary": OKABE_ITO[1],
    "other sampled": "0.55",
    "the references or the score": OKABE_ITO[2],
}
AFTERWARDS = [
    "K=1", "K=1 - batch-mean", "gap K=1 exact expected - leave-one-out", "K=8 - batch-mean", "gap immediate",
    "gap immediate exact", "kl K=1 exact expected - leave-one-out", "kl immediate exact", "data",
]  # fmt: skip
"""Estimators measured after the methods, as the figure shows them."""


def group_of(estimator: str) -> str:
    """Which colour of :data:`GROUPS` an estimator has."""
    if estimator.startswith(("data", "score")):
        return "the references or the score"
    if "exact" in estimator:
        return "sums over the vocabulary"
    return "K-step returns, sampled" if estimator.startswith("K=") else "other sampled"


def ranked(gradients: pd.DataFrame) -> Figure:
    """Every estimator at the start: noise, efficiency toward J, cosine with the score's gradient; best at J on top."""
    reach, score = wide(gradients, "efficiency", "J"), wide(gradients, "cosine", "score")
    power = noise(gradients)
    names = [n for n in reach.mean().sort_values().index if n not in ("data", "score - leave-one-out")]
    panels = [
        ("noise: tr Cov / |E g|²", lambda name: reciprocal(over(power[name])), power),
        ("toward J", lambda name: over(reach[name]), reach),
        ("with the task's score", lambda name: over(score[name]), score),
    ]
    with context():
        made = Figure(figsize=(DOUBLE_WIDTH, 0.165 * len(names) + 1.1), layout="constrained")
        axes = made.subplots(1, len(panels), sharey=True)
        for ax, (title, interval, frame) in zip(axes, panels, strict=True):
            logs = frame is power
            for y, name in enumerate(names):
                x, colour = interval(name), GROUPS[group_of(name)]
                pairs = frame[name].groupby(level=PAIR).mean()
                pairs = 1 / pairs[pairs > 0] if logs else pairs
                ax.plot(pairs, [y] * len(pairs), "|", color=colour, markersize=5, alpha=0.5, zorder=1)
                if np.isfinite(x.value):
                    ax.hlines(y, x.low, min(x.high, 1e6), color=colour, linewidth=1.6, zorder=2)
                    ax.plot(x.value, y, "o", color=colour, markersize=4.2, zorder=3)
            if logs:
                ax.set_xscale("log")
                ax.set_xlim(3, 3e4)
            else:
                ax.axvline(0, color="0.7", linewidth=0.7, zorder=0)
            ax.set_title(title)
            ax.set_ylim(-0.7, len(names) - 0.3)
            ax.set_yticks(range(len(names)), names)
            ax.tick_params(axis="y", length=0)
            ax.grid(axis="y", color="0.93", linewidth=0.6, zorder=0)
            ax.set_xlabel(
                "less is better"
                if logs
                else f"efficiency, a step of {BATCH}"
                if frame is reach
                else f"cosine of two steps of {BATCH}"
            )
        for label in axes[0].get_yticklabels():
            label.set_color(GROUPS[group_of(label.get_text())])
        handles = [
            Line2D([], [], color=colour, marker="o", markersize=4.2, linewidth=1.6, label=label)
            for label, colour in list(GROUPS.items())[:3]
        ]
        made.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return made


def directions(gradients: pd.DataFrame) -> Figure:
    """Where a step of each estimator leads after each method: signed root of its efficiency toward the data."""
    methods = [m for m in ("start", *METHODS) if (gradients["method"] == m).any()]
    frames = {m: root(wide(gradients, "efficiency", "data", m)) for m in methods}
    names = [n for n in AFTERWARDS if n in frames[methods[-1]]]
    values = np.array([[over(frames[m][n]).value for m in methods] for n in names])
    with context():
        made = Figure(figsize=(DOUBLE_WIDTH, 0.31 * len(names) + 1.0), layout="constrained")
        ax = made.subplots()
        image = ax.imshow(values, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
        for i, name in enumerate(names):
            for j, method in enumerate(methods):
                x = over(frames[method][name])
                followed = method in METHODS and METHODS[method][1] == name
                ax.text(
                    j, i, f"{x.value:.2f}\n{x.low:.2f} to {x.high:.2f}", ha="center", va="center", fontsize=5.5,
                    color="white" if abs(x.value) > 0.6 else "black", weight="bold" if followed else "normal",
                )  # fmt: skip
        ax.set_xticks(
            range(len(methods)),
            ["at the start", *("after\n" + METHODS[m][0].replace(", ", ",\n") for m in methods[1:])],
        )
        ax.set_yticks(range(len(names)), names)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        made.colorbar(image, ax=ax, label="away from the data     toward the data", shrink=0.9)
    return made


def drifts(points: pd.DataFrame) -> Figure:
    """NLL of the references against J along training, one line a method, one panel a pair of task and student."""
    pairs = list(points.groupby(PAIR, sort=False).groups)
    with context():
        made = Figure(figsize=(DOUBLE_WIDTH, 2.35 * ((len(pairs) + 1) // 2) + 0.4), layout="constrained")
        axes = np.atleast_1d(made.subplots((len(pairs) + 1) // 2, min(2, len(pairs)))).ravel()
        for ax, pair in zip(axes, pairs, strict=False):
            own = points[(points["task"] == pair[0]) & (points["student"] == pair[1])]
            start = own[own["method"] == "start"].set_index("seed")[["J", "nll"]]
            for (method, (label, _)), colour, marker in zip(
                METHODS.items(),
                (OKABE_ITO[0], OKABE_ITO[5], OKABE_ITO[4], OKABE_ITO[1], OKABE_ITO[3], OKABE_ITO[2]),
                "osv^DP",
                strict=True,
            ):
                curve = own[own["method"] == method]
                if curve.empty:
                    continue
                moved = curve.assign(
                    J=curve["J"] - start["J"].loc[curve["seed"]].to_numpy(),
                    nll=curve["nll"] - start["nll"].loc[curve["seed"]].to_numpy(),
                )
                for _, seed in moved.groupby("seed"):
                    ax.plot([0, *seed["J"]], [0, *seed["nll"]], color=colour, linewidth=0.5, alpha=0.4)
                mean = moved.groupby("step")[["J", "nll"]].mean()
                ax.plot([0, *mean["J"]], [0, *mean["nll"]], color=colour, marker=marker, markersize=3.6, label=label)
            ax.axhline(0, color="0.7", linewidth=0.7, zorder=0)
            ax.axvline(0, color="0.7", linewidth=0.7, zorder=0)
            ax.set_title(f"{pair[0]}, {pair[1]} student")
            ax.set_xlabel("gain in J")
            ax.set_ylabel("drift: NLL of references (nats a token)")
        made.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(METHODS) // 2)
    return made
