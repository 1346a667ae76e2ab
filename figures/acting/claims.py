"""A1 to A5 of the README, decided by what was written there before any run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from figures.acting.cells import CHOSEN, FIXED, LAST, METHODS, OUTCOMES, REFERENCES, Results, competitors, label, over
from figures.acting.compare import HOW, Comparison, compare
from kvar.intervals import Interval, number

Section = tuple[str, list[str]]
"""The verdict in a sentence, and the lines of its tables."""
UNCHOSEN = tuple(m for m, (_, family) in METHODS.items() if family not in ("measured", "references"))
"""Reinforced methods whose estimator no measurement chose."""
HEAD = "| {} | task | outcome | read at | best of them | difference | {}seeds above 0 | reads |"


def side(x: Interval) -> str:
    """Which side of 0 an interval lies on."""
    return "above" if x.above(0) else "below" if x.below(0) else "not resolved"


def row(results: Results, task: str, outcome: str, one: Comparison, how: str, confidence: float | None = None) -> str:
    """A comparison as a line of a table, with a second interval where a confidence is given."""
    unit = f"step {one.when:g}" if how == "samples" else f"{number(one.when, 3)} LLMR steps"
    wide = "" if confidence is None else f"{one.interval(confidence)} | "
    told = side(one.interval(confidence or 0.95))
    return (
        f"| {label(one.method)} | {task} | {OUTCOMES[outcome]} | {HOW[how]}: {unit} | {label(one.best)} | "
        f"{one.interval()} | {wide}{one.signs} | {told} |"
    )


def head(first: str, second: str | None = None) -> list[str]:
    """Head of a table of comparisons."""
    line = HEAD.format(first, "" if second is None else f"{second} | ")
    return [line, "|---" * (line.count("|") - 1) + "|"]


def best_fixed(results: Results, how: str = "samples") -> Section:
    """A1: every method that competes against the best fixed K of its task and outcome, Bonferroni over methods."""
    competing = competitors(results)
    confidence = 1 - 0.05 / max(len(competing), 1)
    lines = head("method less the best fixed K", f"at {confidence:.2%}, Bonferroni over {len(competing)}")
    above: dict[str, set[tuple[str, str]]] = {m: set() for m in competing}
    for task in results.tasks:
        for outcome in OUTCOMES:
            for method in competing:
                one = compare(results, task, outcome, method, FIXED, how)
                if one is None:
                    continue
                lines.append(row(results, task, outcome, one, how, confidence))
                if one.interval(confidence).above(0):
                    above[method].add((task, outcome))
    if len(lines) == 2:
        return "nothing to compare yet", []
    everything = {(task, outcome) for task in results.tasks for outcome in OUTCOMES}
    winners = [m for m in competing if above[m] == everything and len(results.tasks) > 1]
    told = [
        f"{label(m)} ({', '.join(f'{t}: {OUTCOMES[o]}' for t, o in sorted(where))})"
        for m, where in above.items()
        if where and m not in winners
    ]
    rest = f"{'; also above: ' if winners else 'in part: '}{'; '.join(told)}" if told else ""
    if not (winners or told):
        return "refuted: no such interval above 0", lines
    verdict = "confirmed by " + " and ".join(label(m) for m in winners) + rest if winners else rest
    return verdict, lines


def acting(results: Results) -> Section:
    """A2: what measurements chose for J against the best that none chose, in J; decided at equal wall time."""
    return against(results, "J", CHOSEN["J"], UNCHOSEN)


def data(results: Results) -> Section:
    """A3: what measurements chose for the data against going on with SFT or KL, in the greedy score."""
    return against(results, "greedy", CHOSEN["data"], REFERENCES)


def against(results: Results, outcome: str, methods: Sequence[str], group: Sequence[str]) -> Section:
    """Methods against the best of a group: the table, and the verdict at equal wall time, Bonferroni over methods."""
    confidence = 1 - 0.05 / len(methods)
    lines = head("method less the best of the others", f"at {confidence:.1%}")
    told: dict[tuple[str, str], str] = {}
    for how in HOW:
        for task in results.tasks:
            for method in methods:
                one = compare(results, task, outcome, method, group, how)
                if one is None:
                    continue
                lines.append(row(results, task, outcome, one, how, confidence))
                if how == "seconds":
                    told[method, task] = side(one.interval(confidence))
    if len(lines) == 2:
        return "nothing to compare yet", []
    if not told:
        return "not decided: no equal wall time without cost.csv", lines
    ran = {m for m, _ in told}
    where = [f"{label(m)} on {t}" for (m, t), s in told.items() if s == "above"]
    every = [[told.get((m, t)) for t in results.tasks] for m in ran]
    if any(set(sides) == {"above"} and len(sides) > 1 for sides in every):
        return "confirmed: above 0 on both tasks; above: " + "; ".join(where), lines
    if where:
        return "in part: above 0 for " + "; ".join(where), lines
    if all(set(sides) == {"below"} and len(sides) > 1 for sides in every):
        return "refuted: below 0 on both tasks", lines
    return "neither: above 0 on no task, below 0 not on both", lines


def greedy_recipe(results: Results) -> Section:
    """A5: the recipe with greedy rollouts, its length less the start's and its greedy score less the sampled one's."""
    quantities = {
        "length less the start's": ("length", None),
        "length less that of the recipe sampled": ("length", "recipe"),
        "greedy score less that of the recipe sampled": ("greedy", "recipe"),
        "greedy score less the start's": ("greedy", None),
        "sampled score less that of the recipe sampled": ("score", "recipe"),
    }
    lines = ["| recipe, greedy | task | difference | n | seeds above 0 | reads |", "|---|---|---|---|---|---|"]
    good = []
    for task in results.tasks:
        sides = {}
        for name, (quantity, other) in quantities.items():
            x = results.gains(task, "recipe-greedy", quantity, "greedy")
            if other is not None:
                x = (x - results.gains(task, other, quantity, "greedy")).dropna()
            if len(x):
                sides[name] = side(over(x))
                lines.append(f"| {name} | {task} | {over(x)} | {len(x)} | {int((x > 0).sum())} | {sides[name]} |")
        if len(sides) == len(quantities):
            start, sampled, score = (sides[name] for name in list(quantities)[:3])
            asked = score == "above" and sampled == "above"
            good.append("confirmed" if asked and start != "below" else "in part" if asked else "refuted")
    if not good:
        return "nothing to compare yet", lines if len(lines) > 2 else []
    if len(good) > 1 and len(set(good)) == 1:
        words = {
            "confirmed": "confirmed: not resolved as shorter than the start, greedy score above, on both tasks",
            "in part": "in part: longer than the recipe sampled and greedy score above, but shorter than the start",
            "refuted": "refuted: greedy score not above, or as short as the recipe sampled",
        }
        return words[good[0]], lines
    return "in part: " + ", ".join(f"{task}: {told}" for task, told in zip(results.tasks, good, strict=False)), lines


def for_the_run(results: Results) -> Section:
    """A6: methods whose measurement asked for the run's responses, less the same that asked for one step's, in J."""
    pairs = dict(zip(CHOSEN["run"], CHOSEN["J"], strict=True))
    lines = head("method less the same for one step", "at 97.5%")
    found: dict[str, list[Interval]] = {}
    for task in results.tasks:
        for method, other in pairs.items():
            one = compare(results, task, "J", method, (other,), "samples")
            if one is not None:
                lines.append(row(results, task, "J", one, "samples", 0.975))
                found.setdefault(method, []).append(one.interval(0.975))
    if not found:
        return "nothing to compare yet", []
    above = {m: [x.above(0) for x in each] for m, each in found.items()}
    if any(len(each) > 1 and all(each) for each in above.values()):
        return "confirmed by " + " and ".join(
            label(m) for m, each in above.items() if len(each) > 1 and all(each)
        ), lines
    if any(map(any, above.values())):
        return "in part: above 0 on one task for " + " and ".join(label(m) for m, e in above.items() if any(e)), lines
    if all(x.value <= 0 for each in found.values() for x in each):
        return "refuted: no difference above 0 on average", lines
    return "neither: differences above 0, none resolved", lines


def not_below(results: Results) -> Section:
    """A7: the same against the best that no measurement chose, in J; what is lost, as a share of that one's gain."""
    lines = head("method less the best of the others")
    lines[0] += " lost of its gain, at most |"
    lines[1] += "---|"
    kept: dict[str, list[bool]] = {}
    below: list[bool] = []
    for task in results.tasks:
        for method in CHOSEN["run"]:
            one = compare(results, task, "J", method, UNCHOSEN, "samples")
            if one is None:
                continue
            x, gain = one.interval(), results.gains(task, one.best, "J", "J").mean()
            lost = max(-x.low / gain, 0.0)
            lines.append(f"{row(results, task, 'J', one, 'samples')} {lost:.0%} |")
            kept.setdefault(method, []).append(bool(lost < 0.1))
            below.append(x.below(0))
    if not kept:
        return "nothing to compare yet", []
    good = [label(m) for m, each in kept.items() if len(each) > 1 and all(each)]
    if good:
        return "confirmed by " + " and ".join(good), lines
    if all(below):
        return "refuted: below 0 on both tasks", lines
    return "neither: not within 10 % of the best on both tasks", lines


def less_llmr(results: Results) -> list[str]:
    """Every other fixed K less LLMR after as many steps, each at its own rate."""
    lines = head("method less LLMR")
    for task in results.tasks:
        for outcome in OUTCOMES:
            each = [compare(results, task, outcome, method, FIXED[:1], "samples") for method in FIXED[1:]]
            lines += [row(results, task, outcome, one, "samples") for one in each if one is not None]
    return lines


def levelled(results: Results) -> list[str]:
    """Whether curves have levelled: what of the gain in J, and in the greedy score, was made after step 50."""
    lines = ["| gain from step 50 to 150, of that from 0 to 150 | task | J | greedy score |", "|---|---|---|---|"]
    for task in results.tasks:
        for method in METHODS:
            texts = []
            for outcome in OUTCOMES:
                curve = results.curves(task, method, outcome, outcome)
                if {50, LAST} <= set(curve):
                    late, whole = (curve[LAST] - curve[50]).mean(), (curve[LAST] - curve[0]).mean()
                    texts.append(f"{number(late)} of {number(whole)}")
                else:
                    texts.append("-")
            if texts != ["-"] * len(OUTCOMES):
                lines.append(f"| {label(method)} | {task} | " + " | ".join(texts) + " |")
    return lines


def pooled(results: Results, outcome: str, how: str, methods: Sequence[str], group: Sequence[str]) -> list[str]:
    """Sign counts over both tasks together, where differences have no common unit."""
    lines = ["| method | seeds of all tasks above 0 | two-sided sign test |", "|---|---|---|"]
    for method in methods:
        parts = [compare(results, task, outcome, method, group, how) for task in results.tasks]
        x = pd.concat([p.difference for p in parts if p is not None]) if any(parts) else pd.Series(dtype=float)
        if len(x):
            lines.append(f"| {label(method)} | {int((x > 0).sum())} of {len(x)} | {sign_test(x):.3f} |")
    return lines


def sign_test(x: pd.Series) -> float:
    """Two-sided p of the exact sign test; zeros are left out.

    >>> sign_test(pd.Series([1.0, 2.0, 3.0, 4.0, 5.0]))
    0.0625
    """
    from scipy.stats import binomtest

    kept = np.asarray(x, dtype=float)
    kept = kept[kept != 0]
    return float(binomtest(int((kept > 0).sum()), len(kept)).pvalue) if len(kept) else 1.0
