"""What the README fixed beforehand, decided, and the same over other units."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from figures.estimators.cells import CELL, METHODS, PAIR, at_equal_j, noise, over, wide
from kvar.intervals import Interval, rank_correlation
from kvar.intervals.interval import number


def resolved(x: Interval, against: float = 0.0) -> str:
    """Which side of a number an interval lies on."""
    return "above" if x.above(against) else "below" if x.below(against) else "not resolved"


def orderings(gradients: pd.DataFrame) -> list[str]:
    """N1 and N2: neighbours of the claimed orders, in each pair of task and student and over all cells."""
    chains = {
        "J": ["K=1", "K=4", "K=8", "gap immediate", "gap immediate exact"],
        "J_kl": ["kl immediate", "kl immediate centred", "kl immediate exact"],
    }
    power = noise(gradients)
    lines = [
        "| claimed | quantity | pairs of task and student whose intervals do not overlap, as claimed / against | "
        "paired over cells | n |",
        "|---|---|---|---|---|",
    ]
    for target, chain in chains.items():
        reach = wide(gradients, "efficiency", target)
        for worse, better in pairwise(chain):
            for quantity, frame in (("\\|E g\\|² / tr Cov", power), (f"efficiency toward {target}", reach)):
                ends = [(over(own[better]), over(own[worse])) for _, own in frame.groupby(level=PAIR)]
                told = sum(b.above(w) for b, w in ends), sum(b.below(w) for b, w in ends)
                both = frame[[better, worse]].dropna()
                positive = bool((both > 0).all(axis=None)) and quantity.startswith("\\|")
                if positive:
                    paired = over(both[better] / both[worse], "log")
                    text = f"ratio {paired}, {resolved(paired, 1.0)} 1"
                else:
                    paired = over(both[better] - both[worse])
                    text = f"difference {paired}, {resolved(paired)} 0"
                text = text.replace("not resolved 1", "not resolved").replace("not resolved 0", "not resolved")
                lines.append(
                    f"| {better} better than {worse} | {quantity} | {told[0]} / {told[1]} of {len(ends)} | {text} | "
                    f"{paired.n} |"
                )
    return lines


def root(x: pd.DataFrame) -> pd.DataFrame:
    """Signed root: what an efficiency's cosine is."""
    return np.sign(x) * np.sqrt(x.abs())


def used_up(gradients: pd.DataFrame, statistic: str = "efficiency") -> tuple[list[str], list[str]]:
    """D1: own estimator after its own method less after the others; and the table of all methods and estimators."""
    after = {
        m: (
            root(wide(gradients, "efficiency", "data", m))
            if statistic == "efficiency"
            else wide(gradients, "cosine", "data", m)
        )
        for m in ("start", *METHODS)
        if ((gradients["method"] == m).any())
    }
    trained = [m for m in after if m != "start"]
    shown = [e for e in after[trained[0]].columns if e not in ("score - leave-one-out",)]
    lines = ["| estimator | " + " | ".join(["start", *(METHODS[m][0] for m in trained)]) + " |"]
    lines.append("|---|" + "---|" * (len(trained) + 1))
    for name in shown:
        cells = [str(over(after[m][name])) if name in after[m] else "-" for m in ("start", *trained)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    contrasts = {}
    for method in trained:
        own = METHODS[method][1]
        rest = sum(after[m][own] for m in trained if m != method) / (len(trained) - 1)
        contrasts[METHODS[method][0]] = after[method][own] - rest
    contrasts["mean over methods"] = sum(contrasts.values()) / len(contrasts)
    decided = ["| method | own estimator after it, less after the others | resolved | n |", "|---|---|---|---|"]
    for name, values in contrasts.items():
        x = over(values)
        decided.append(f"| {name} | {x} | {resolved(x)} | {x.n} |")
    return decided, lines


def drift(points: pd.DataFrame) -> list[str]:
    """D2, D3, D4: NLL, length and score at equal J, paired by cell."""
    equal = at_equal_j(points).set_index([*CELL, "method"])
    last = points[points["step"] == points.groupby([*CELL, "method"])["step"].transform("max")]
    last = last.set_index([*CELL, "method"])
    lines = ["| at equal J | all cells | " + " | ".join(f"{t}, {s}" for t, s in _pairs(equal)) + " |"]
    lines.append("|---|---|" + "---|" * len(_pairs(equal)))
    for one, other in (
        ("llmr", "K=8"),
        ("llmr", "immediate-exact"),
        ("K=8", "immediate-exact"),
        ("immediate-exact", "immediate"),
    ):
        for quantity in ("nll", "length", "score", "step"):
            frame = equal[quantity].unstack("method")
            lines.append(
                _compared(f"{quantity}: {METHODS[one][0]} less {METHODS[other][0]}", frame[one] - frame[other])
            )
    lines += ["", "| after the last step | all cells | " + " | ".join(f"{t}, {s}" for t, s in _pairs(equal)) + " |"]
    lines.append("|---|---|" + "---|" * len(_pairs(equal)))
    for quantity in ("J", "J_kl", "nll", "length", "score"):
        frame = last[quantity].unstack("method")
        for method in [m for m in METHODS if m in frame]:
            lines.append(_compared(f"{quantity}: {METHODS[method][0]} less start", frame[method] - frame["start"]))
    return lines


def _pairs(frame: pd.DataFrame) -> list[tuple[str, str]]:
    return list(
        dict.fromkeys(zip(frame.index.get_level_values("task"), frame.index.get_level_values("student"), strict=True))
    )


def _compared(title: str, difference: pd.Series) -> str:
    each = [str(over(own)) for _, own in difference.groupby(level=PAIR, sort=False)]
    whole = over(difference)
    return f"| {title} | **{whole}** (n = {whole.n}) | " + " | ".join(each) + " |"


def by_task(points: pd.DataFrame) -> list[str]:
    """What each method gains in the sampled score and in the greedy score of the test examples, each task apart."""
    last = points[points["step"] == points.groupby([*CELL, "method"])["step"].transform("max")]
    last = last.set_index([*CELL, "method"]).sort_index()
    columns = [("translation", "score", "sampled chrF"), ("translation", "test_bleu", "greedy test BLEU"),
               ("translation", "test_chrf", "greedy test chrF"), ("summarisation", "score", "sampled ROUGE-L"),
               ("summarisation", "test_rouge1", "greedy test ROUGE-1"),
               ("summarisation", "test_rougeL", "greedy test ROUGE-L")]  # fmt: skip
    lines = ["| last step less start | " + " | ".join(f"{task}, {label}" for task, _, label in columns) + " |"]
    lines.append("|---|" + "---|" * len(columns))
    for method, (label, _) in METHODS.items():
        gains = []
        for task, quantity, _ in columns:
            frame = last.loc[task, quantity].unstack("method")
            x = over(frame[method] - frame["start"])
            gains.append(f"{x} (n = {x.n})")
        lines.append(f"| {label} | " + " | ".join(gains) + " |")
    return lines


def other_units(gradients: pd.DataFrame, points: pd.DataFrame) -> list[str]:
    """The main differences over cells, over task and seed (whose students share prompts) and over task and student.

    The differences at equal J are taken half-way and three quarters up to that J as well.
    """
    exact, sampled = "gap immediate exact", "gap immediate"
    power = np.log(noise(gradients)[[exact, sampled, "K=8"]])
    reach, step = wide(gradients, "efficiency", "J"), wide(gradients, "cosine", "score")
    rows = {
        "log of \\|E g\\|² / tr Cov: immediate exact less sampled": power[exact] - power[sampled],
        "log of \\|E g\\|² / tr Cov: immediate sampled less K = 8": power[sampled] - power["K=8"],
        "efficiency toward J: immediate exact less sampled": reach[exact] - reach[sampled],
        "efficiency toward J: immediate exact less K = 8": reach[exact] - reach["K=8"],
        "efficiency toward J: K = 8 less K = 4": reach["K=8"] - reach["K=4"],
        "efficiency toward J: K = 4 less K = 1": reach["K=4"] - reach["K=1"],
        "cosine with a score step: K = 1": step["K=1"],
        "cosine with a score step: K = 1 less a batch mean, less K = 1": step["K=1 - batch-mean"] - step["K=1"],
        "cosine with a score step: immediate exact": step[exact],
        "cosine with a score step: immediate exact less K = 1": step[exact] - step["K=1"],
    }
    for share in (1.0, 0.75, 0.5):
        equal = at_equal_j(points, share=share).set_index([*CELL, "method"])
        for one, other in (("llmr", "K=8"), ("llmr", "immediate-exact"), ("immediate-exact", "immediate")):
            for quantity in ("nll", "length"):
                frame = equal[quantity].unstack("method")
                title = f"{quantity} at {share:.0%} of the gain: {METHODS[one][0]} less {METHODS[other][0]}"
                rows[title] = frame[one] - frame[other]
    lines = ["| | cells | task and seed | task and student | cells above 0 |", "|---|---|---|---|---|"]
    for title, x in rows.items():
        texts = [str(over(x)), *(str(over(x.groupby(level=by).mean())) for by in (["task", "seed"], PAIR))]
        lines.append(f"| {title} | " + " | ".join(texts) + f" | {(x > 0).sum()} of {x.notna().sum()} |")
    return lines


def scores(gradients: pd.DataFrame, points: pd.DataFrame) -> list[str]:
    """S1: does the gain in score follow the efficiency toward J, toward the data, or the nearness to the data?"""
    last = points[points["step"] == points.groupby([*CELL, "method"])["step"].transform("max")]
    last = last.set_index([*CELL, "method"])
    reach = {t: wide(gradients, "efficiency", t) for t in ("J", "J_kl", "data")}
    lines = [
        "| rank correlation over methods of the gain in score with | score | rho | p | n |",
        "|---|---|---|---|---|",
    ]
    for score in ("score", "greedy"):
        for label, methods in (
            ("methods that sample", [m for m in METHODS if m != "sft"]),
            ("all methods", list(METHODS)),
        ):
            column = last["score"] if score == "score" else last["greedy_chrf"].fillna(last.get("greedy_rougeL"))
            frame = column.unstack("method").dropna()
            gain = frame[methods].sub(frame["start"], axis=0)
            drifted = last["nll"].unstack("method").loc[gain.index]
            own = [METHODS[m][1] for m in methods]
            with_what = {
                **{f"efficiency toward {t}": x.reindex(gain.index)[own] for t, x in reach.items()},
                "minus drift": -drifted[methods],
                "gain in J": last["J"].unstack("method").loc[gain.index, methods],
                "length": last["length"].unstack("method").loc[gain.index, methods],
            }
            for what, x in with_what.items():
                kept = np.isfinite(x.to_numpy(dtype=float)).all(axis=1)
                rank = rank_correlation(x.to_numpy(dtype=float)[kept], gain.to_numpy()[kept])
                text = Interval(rank.rho, rank.low, rank.high)
                lines.append(f"| {what} ({label}) | {score} | {text} | {rank.p:.2f} | {rank.seeds} |")
    return lines


def toward_score(gradients: pd.DataFrame) -> list[str]:
    """Whether the score's gradient is resolved, which estimators lead to it, and how many prompts would tell."""
    lines = [
        "| when | cells whose score gradient is resolved | prompts that would resolve it (median, most) |",
        "|---|---|---|",
    ]
    own = gradients[(gradients["estimator"] == "score - leave-one-out") & (gradients["statistic"] == "signal")]
    for method, rows in own.groupby("method", sort=False):
        needed = rows["units_to_resolve"]
        when = "start" if method == "start" else f"after {METHODS[method][0]}"
        told = f"{(rows['low'] > 0).sum()} of {len(rows)}"
        lines.append(f"| {when} | {told} | {number(needed.median())}, {number(needed.max())} (has {rows['n'].max()}) |")
    lines += [
        "",
        "| estimator at the start | cosine with a score step of 64 | toward / away in single cells | "
        "prompts that would tell (median) | n |",
        "|---|---|---|---|---|",
    ]
    rows = gradients[(gradients["target"] == "score") & (gradients["method"] == "start")]
    step = rows[rows["statistic"] == "cosine"]
    for name, each in sorted(step.groupby("estimator"), key=lambda item: -item[1]["value"].mean()):
        x = over(each["value"])
        lines.append(
            f"| {name} | {x} | {(each['low'] > 0).sum()} / {(each['high'] < 0).sum()} | "
            f"{number(each['units_to_resolve'].median())} | {x.n} |"
        )
    return lines
