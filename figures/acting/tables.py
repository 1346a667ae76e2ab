"""All methods at their rates, and the tuning of the rates."""

from __future__ import annotations

import numpy as np
import pandas as pd

from figures.acting.cells import LAST, METHODS, OUTCOMES, Results, label, over
from figures.acting.measure import TUNING_SEED
from kvar.intervals import Interval, number

COLUMNS = {
    "J": ("J", 1),
    "J_kl": ("J_kl", 1),
    "greedy": ("greedy score", 2),
    "score": ("sampled score", 2),
    "length": ("length", 2),
    "finished": ("finished", 3),
    "nll": ("NLL of references", 3),
}
"""Quantity -> name and decimals."""
TESTS = {"translation": "test_chrf", "summarisation": "test_rougeL"}
"""The greedy score on the 500 test examples after the last step."""


def methods(results: Results) -> str:
    """A table a task and outcome: every method at the rate chosen for it; means over seeds, t intervals.

    The best comes first, after all of them those with fewer seeds.
    """
    parts = []
    for task in results.tasks:
        for by, name in OUTCOMES.items():
            rows = {}
            there = results.methods(task, by)
            most = max((len(results.curves(task, m, by, by)) for m in there), default=0)
            for method in there:
                curves = {q: results.curves(task, method, q, by) for q in COLUMNS}
                ends = {LAST, curves[by].columns[-1]} & set(curves[by])
                for end in sorted(ends):
                    who = label(method) + (f", {end} steps" if end != LAST else "")
                    test = tested(results, task, method, by) if end == curves[by].columns[-1] else "-"
                    seeds = curves[by][end].notna().sum()
                    texts = [fixed(over(curves[q][end]), digits) for q, (_, digits) in COLUMNS.items()]
                    rate = f"{results.rates[task, method, by]:g}"
                    rows[who] = ((seeds >= most, curves[by][end].mean()), [who, rate, *texts, test, str(seeds)])
            start = start_row(results, task)
            if start is not None:
                texts = [fixed(over(start[q]), digits) for q, (_, digits) in COLUMNS.items()]
                rows["start"] = ((True, start[by].mean()), ["*start*", "-", *texts, "-", str(len(start))])
            head = ["method", "rate", *(name for name, _ in COLUMNS.values()), "greedy score, 500 others", "seeds"]
            lines = [f"## {task}, at the rate for {name}", "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
            lines += ["| " + " | ".join(texts) + " |" for _, texts in sorted(rows.values(), reverse=True)]
            if rows:
                parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def fixed(x: Interval, digits: int) -> str:
    """A number and its interval to so many decimals.

    >>> fixed(Interval(3.14159, 3.1, 3.2), 2)
    '3.14 (3.10 to 3.20)'
    """
    if not x.known:
        return f"{x.value:.{digits}f}"
    return f"{x.value:.{digits}f} ({x.low:.{digits}f} to {x.high:.{digits}f})"


def start_row(results: Results, task: str) -> pd.DataFrame | None:
    """The starts of the seeds compared."""
    points = results.points
    own = points[(points["task"] == task) & (points["method"] == "start") & (points["seed"] != TUNING_SEED)]
    return own if len(own) else None


def tested(results: Results, task: str, method: str, by: str) -> str:
    """Greedy score of the 500 test examples after a method's last step."""
    points, column = results.points, TESTS.get(task, "")
    if column not in points:
        return "-"
    own = points[
        (points["task"] == task)
        & (points["method"] == method)
        & (points["rate"] == results.rates[task, method, by])
        & (points["seed"] != TUNING_SEED)
    ]
    return fixed(over(own[column]), 2)


def rates(points: pd.DataFrame) -> str:
    """J and greedy score at the tuning seed's last step by rate, the best bold, and of the start; edges are marked."""
    tuning = points[(points["seed"] == TUNING_SEED) & (points["method"] != "start")]
    begun = points[(points["seed"] == TUNING_SEED) & (points["method"] == "start")].set_index("task")
    parts = []
    for outcome, name in OUTCOMES.items():
        starts = begun[outcome]
        grid = sorted(tuning["rate"].unique())
        lines = [f"## {name}, seed {TUNING_SEED}, validation prompts", ""]
        lines += ["| task | method | step | " + " | ".join(f"{r:g}" for r in grid) + " | at an edge | start |"]
        lines += ["|---" * (len(grid) + 5) + "|"]
        order = {method: place for place, method in enumerate(METHODS)}
        for (task, method), own in sorted(
            tuning.groupby(["task", "method"], sort=False), key=lambda item: (item[0][0], order.get(item[0][1], 99))
        ):
            step = own["step"].max()
            at = own[own["step"] == step].set_index("rate")[outcome]
            best = at.idxmax()
            texts = [f"**{number(at[r], 3)}**" if r == best else number(at[r], 3) if r in at else "-" for r in grid]
            edge = "lowest" if best == min(at.index) else "highest" if best == max(at.index) else ""
            edge = edge if len(at) > 1 else f"only {len(at)} rate"
            lines.append(
                f"| {task} | {label(method)} | {step} | "
                + " | ".join(texts)
                + f" | {edge} | {number(starts.get(task, np.nan), 3)} |"
            )
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"
