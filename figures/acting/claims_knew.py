"""A4 of the README decided, and what is seen of it along the way."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from figures.acting.cells import LAST, Results, label
from figures.acting.knew import (
    GAINS,
    PERMUTED,
    PREDICTORS,
    RIVALS,
    UNREAD,
    Ranks,
    gains,
    overtaken,
    predictors,
    ranked,
    tuning_gains,
)  # fmt: skip
from kvar.intervals import number

DECIDES = "by task"
"""How methods are exchanged in the test that decides: seeds of a task share methods and teacher, so that exchanging
each seed's methods alone would count what they share five times."""


def knew(results: Results) -> tuple[str, list[str]]:
    """A4: correlations of the statistics at the start with gains, and whether efficiency toward J has the largest."""
    lines, tables = table(results, 0)
    first = tables.get(("efficiency toward J", "gain in J"))
    if first is None:
        return "nothing to compare yet", []
    rho = first.rho.mean()
    beaten = {
        rival: first.rho - other.rho for rival in RIVALS if (other := tables.get((rival, "gain in J"))) is not None
    }
    lines += ["", "| rho of efficiency toward J with the gain in J, less that of | difference | cells above 0 |"]
    lines.append("|---|---|---|")
    lines += [f"| {rival} | {number(d.mean())} | {int((d > 0).sum())} of {len(d)} |" for rival, d in beaten.items()]
    larger = all(d.mean() > 0 for d in beaten.values()) and len(beaten) == len(RIVALS)
    told = f"rho {number(rho)}, " + ", ".join(f"p {share(p)} {PERMUTED[how]}" for how, p in first.p.items())
    if rho <= 0:
        return f"refuted: correlation not above 0 ({told})", lines
    if first.p[DECIDES] < 0.05 and larger:
        return f"confirmed: {told}; larger than those of trace, norm and verl's W", lines
    missing = [] if first.p[DECIDES] < 0.05 else [f"p not below 0.05 {PERMUTED[DECIDES]}"]
    missing += [] if larger else ["not larger than " + ", ".join(r for r, d in beaten.items() if d.mean() <= 0)]
    return f"neither: above 0, but {'; '.join(missing)} ({told})", lines


def unread(results: Results) -> tuple[str, list[str]]:
    """A4': the efficiency of the whole run, in cells that were not run when it was stated."""

    def there(*args: Any, **options: Any) -> pd.DataFrame:
        frame = gains(*args, **options)
        return frame[[cell in UNREAD for cell in frame.index]]

    lines, tables = table(results, 0, there)
    one = tables.get(("efficiency toward J, whole run", "gain in J"))
    if one is None:
        return "nothing to compare yet", lines
    rho, alone = one.rho.mean(), one.p["alone"]
    told = f"rho {number(rho)}, {len(one.rho)} x {one.methods} cells x methods, p {share(alone)}"
    if rho <= 0:
        return f"refuted: correlation not above 0 ({told})", lines
    decided = max(alone, one.p.get("alike", 1.0)) < 0.05
    return ("confirmed: " if decided else "neither: above 0, but p not below 0.05: ") + told, lines


def overtaken_by_one(results: Results) -> list[str]:
    """Up to how many steps each quieter estimator points better at J than K = 1, at the start."""
    lines = [
        "| points better than K = 1 up to | task | median steps of 16 | over seeds | median, cosines not cut | n |"
    ]
    lines.append("|---|---|---|---|---|---|")
    for estimator in ("K=2", "K=4", "K=8", "gap immediate", "gap immediate exact", "kl immediate exact"):
        for task, steps in overtaken(results, estimator).groupby("task", sort=False):
            span = f"{number(steps.min())} to {number(steps.max())}"
            uncut = overtaken(results, estimator, cut=np.inf)[steps.index].median()
            lines.append(
                f"| {estimator} | {task} | {number(steps.median())} | {span} | {number(uncut)} | {len(steps)} |"
            )
    return lines


def share(p: float) -> str:
    """A p value as it is printed.

    >>> share(0.00005), share(0.0421)
    ('<0.001', '0.042')
    """
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def table(
    results: Results, step: int, source: Callable[..., pd.DataFrame] = gains
) -> tuple[list[str], dict[tuple[str, str], Ranks]]:
    """Every statistic at a step against every gain from there to the last: means over cells, and by task."""
    titles = " | ".join(results.tasks)
    lines = [
        f"| at step {step} | against | mean rho over cells | {titles} | p, exchanged: "
        + " / ".join(PERMUTED.values())
        + " | cells x methods |",
        "|---|---|---|" + "---|" * len(results.tasks) + "---|---|",
    ]
    told: dict[tuple[str, str], Ranks] = {}
    for gain, (quantity, by) in GAINS.items():
        measured, realised = predictors(results, step, by), source(results, quantity, by, since=step)
        for name in PREDICTORS:
            one = ranked(measured[name], realised)
            if one is None:
                continue
            told[name, gain] = one
            each = [one.rho[[t == task for t, _ in one.rho.index]] for task in results.tasks]
            lines.append(
                f"| {name} | {gain} | {number(one.rho.mean())} | "
                + " | ".join(
                    f"{number(x.mean())} ({(x > 0).sum()} of {len(x)} above 0)" if len(x) else "-" for x in each
                )
                + " | "
                + " / ".join(share(one.p[how]) if how in one.p else "-" for how in PERMUTED)
                + f" | {len(one.rho)} x {one.methods} |"
            )
    return (lines if told else []), told


def along(results: Results) -> list[str]:
    """The same of each method's own estimator and student at step 50, with the gain from there to the last step."""
    lines, _ = table(results, 50)
    return lines


def tuning(results: Results) -> list[str]:
    """The same of the tuning seed, which ran every method: where its start's gradients are measured."""
    lines, _ = table(results, 0, tuning_gains)
    return lines


def auto(results: Results) -> list[str]:
    """What auto and optimal chose: how often they changed, and what they used most."""
    lines = [
        "| method | task | seeds | choices | changes a seed | in use longest (share of steps) | gain in efficiency "
        "foreseen at a change |",
        "|---|---|---|---|---|---|---|",
    ]
    outcome = {"J": "J", "data": "greedy", "run": "J"}
    for (method, task), own in results.choices.groupby(["method", "task"], sort=False):
        by = outcome[str(method).rpartition("-")[2]]
        own = own[own["rate"] == results.rates.get((task, method, by))]
        own = own[own["seed"].isin(results.curves(task, method, "J", by).index)]
        if not len(own):
            continue
        seeds = own["seed"].nunique()
        changed = own["changed"].astype(bool)
        use = in_use(own)
        longest = use.idxmax()
        lines.append(
            f"| {label(method)} | {task} | {seeds} | {len(own)} | {changed.sum() / seeds:.1f} | "
            f"{longest} ({use[longest] / use.sum():.0%}) | {number(own.loc[changed, 'gain'].mean())} |"
        )
    return lines if len(lines) > 2 else []


def in_use(choices: pd.DataFrame, last: int = LAST) -> pd.Series:
    """Estimator -> steps in use, over all runs of a table of choices, from each choice to the next or the last step."""
    steps: dict[str, float] = {}
    for _, run in choices.sort_values("step").groupby(["task", "method", "rate", "seed"]):
        ends = [*run["step"].iloc[1:], last]
        for begun, end, name in zip(run["step"], ends, map(kind, run["estimator"]), strict=True):
            steps[name] = steps.get(name, 0.0) + max(end - begun, 0)
    return pd.Series(steps)


def kind(estimator: str) -> str:
    """An estimator's name, without the numbers of a kernel that was fitted to one measurement.

    >>> kind("gap stepwise(1:1, 2:0.5) exact expected - position-mean"), kind("K=4")
    ('gap stepwise(fitted) exact expected - position-mean', 'K=4')
    """
    return re.sub(r"(lags|stepwise)\([^)]*\)", r"\1(fitted)", estimator)
