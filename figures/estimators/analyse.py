"""Tables and figures of the study of estimators, from the runs or from the data beside this file.

    python figures/estimators/analyse.py [runs/estimators]

With a folder of runs that ``measure.py`` has measured it first writes ``gradients.parquet`` (every statistic of every
estimator and cell) and ``points.parquet`` (objectives, length, likelihood of the references and scores at every
checkpoint). From these two it writes ``table.md`` (all estimators, best first), ``by_pair.md``, ``claims.md`` (what was
fixed beforehand, decided) and the figures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import kvar
from kvar.analysis import cosine, noise_scale, signal, trace_covariance
from kvar.analysis.frames.reference import default_reference
from kvar.analysis.targets import toward, units_for_sign
from kvar.intervals import Interval, mean_with_interval, rank_correlation
from kvar.intervals.interval import number
from kvar.measurement import is_measurement
from kvar.plots.parts.save import save
from kvar.plots.parts.style import DOUBLE_WIDTH, OKABE_ITO, context
from kvar.records.study_folder import cell_parts, read_cells

HERE = Path(__file__).parent
BATCH = 64
"""Responses a step, one each to so many prompts."""
TARGETS = {"J": "J", "J_kl": "J_kl", "data": "data", "score": "score"}
CELL = ["task", "student", "seed"]
PAIR = ["task", "student"]
METHODS = {
    "llmr": ("LLMR (K = 1)", "K=1 - batch-mean"),
    "K=8": ("K = 8", "K=8 - batch-mean"),
    "immediate": ("immediate, sampled", "gap immediate"),
    "immediate-exact": ("immediate, exact", "gap immediate exact"),
    "kl-exact": ("reverse KL, exact", "kl immediate exact"),
    "sft": ("on the references", "data"),
}
"""Method -> its name in figures, and the estimator that it follows."""
GAP = ["llmr", "K=8", "immediate", "immediate-exact"]
"""The methods whose reward is the gap."""
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


def collect(runs: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every number of every cell that is measured."""
    gradients, points = [], []
    for name in read_cells(runs):
        task, student, method, seed = cell_parts(name)
        at = {"task": task, "student": student, "method": method, "seed": int(seed or 0)}
        folder = runs / name
        if (folder / "points.json").is_file():
            rows = json.loads((folder / "points.json").read_text(encoding="utf-8"))
            test = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))["metrics"]
            rows[-1] |= {f"test_{key}": value for key, value in test.items() if isinstance(value, int | float)}
            points.append(pd.DataFrame(rows).assign(**at))
        if is_measurement(folder / "measured"):
            gradients.append(statistics(folder / "measured").assign(**at))
            print(name, flush=True)
    return tuple(  # type: ignore[return-value]
        joint[[*at, *(c for c in joint if c not in at)]]
        for joint in (pd.concat(frames, ignore_index=True) for frames in (gradients, points))
    )


def statistics(folder: Path) -> pd.DataFrame:
    """A measurement's numbers: one row an estimator, target ("" for none) and statistic."""
    moments = kvar.load(folder).moments
    parts = []
    for statistic, estimate in {
        "trace": trace_covariance(moments),
        "relative_variance": noise_scale(moments),
        "signal": signal(moments),
    }.items():
        parts.append(
            pd.DataFrame(
                {
                    "target": "",
                    "estimator": moments.names,
                    "statistic": statistic,
                    "value": estimate.value,
                    "low": estimate.low,
                    "high": estimate.high,
                    "units_to_resolve": units_for_sign(estimate) if statistic == "signal" else np.nan,
                    "n": estimate.n,
                }
            )
        )
    table = toward(moments, TARGETS, BATCH)
    for target in TARGETS:
        own = table[table["target"] == target]
        agreement = cosine(moments, batch=BATCH, reference=default_reference(moments.names, target))
        same = {"target": target, "estimator": moments.names, "n": own["units"].to_numpy()}
        parts += [
            pd.DataFrame(
                {
                    **same,
                    "statistic": "efficiency",
                    "value": own["efficiency"].to_numpy(),
                    "low": own["efficiency_low"].to_numpy(),
                    "high": own["efficiency_high"].to_numpy(),
                    "units_to_resolve": own["units_to_resolve"].to_numpy(),
                }
            ),
            pd.DataFrame({**same, "statistic": "bias", "value": own["bias"].to_numpy()}),
            pd.DataFrame(
                {
                    **same,
                    "statistic": "cosine",
                    "value": agreement.value,
                    "low": agreement.low,
                    "high": agreement.high,
                    "units_to_resolve": units_for_sign(agreement),
                }
            ),
        ]
    return pd.concat(parts, ignore_index=True)


def over(values: Iterable[float], scale: str = "plain") -> Interval:
    """The mean of cells with its t interval, from three on; NaN are left out, and n says how many were not."""
    x = np.asarray(list(values), dtype=float)
    x = x[np.isfinite(x)]
    if not len(x):
        return Interval(np.nan)
    if len(x) < 3:
        return Interval(float(x.mean()), n=len(x))
    return Interval(*mean_with_interval(x, scale=scale), n=len(x))  # type: ignore[arg-type]


def wide(gradients: pd.DataFrame, statistic: str, target: str = "", method: str = "start") -> pd.DataFrame:
    """Rows cells, columns estimators."""
    own = gradients[
        (gradients["statistic"] == statistic) & (gradients["target"] == target) & (gradients["method"] == method)
    ]
    return own.pivot(index=CELL, columns="estimator", values="value")


def noise(gradients: pd.DataFrame) -> pd.DataFrame:
    """|E g|^2 / tr Cov of a response at the start, the reciprocal of the relative variance, which may be negative."""
    return wide(gradients, "signal") / wide(gradients, "trace")


def reciprocal(x: Interval) -> Interval:
    """1 / x of an interval of a reciprocal; infinite where it reaches zero."""
    ends = [end if np.isnan(end) else 1 / end if end > 0 else np.inf for end in (x.value, x.high, x.low)]
    return Interval(ends[0], ends[1], ends[2], x.n)


def table(gradients: pd.DataFrame, cells: pd.MultiIndex | None = None) -> str:
    """One row an estimator, best first toward J: means over cells, t intervals."""
    power, trace = noise(gradients), wide(gradients, "trace")
    reach = {target: wide(gradients, "efficiency", target) for target in TARGETS}
    step = wide(gradients, "cosine", "score")
    bias = {target: wide(gradients, "bias", target) for target in ("J", "data")}
    if cells is not None:
        power, trace, step = (x.loc[cells] for x in (power, trace, step))
        reach, bias = ({t: x.loc[cells] for t, x in held.items()} for held in (reach, bias))
    order = reach["J"].mean().sort_values(ascending=False).index
    head = [
        "estimator", "tr Cov, of K = 1", "tr Cov / \\|E g\\|²", "toward J", "toward J_kl", "toward the data",
        "bias to J", "bias to data", "cosine with a score step",
    ]  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name in order:
        row = [
            str(over(trace[name] / trace["K=1"], "log")),
            str(reciprocal(over(power[name]))),
            *(str(over(reach[target][name])) for target in ("J", "J_kl", "data")),
            *(f"{bias[target][name].mean():.2f}" for target in ("J", "data")),
            str(over(step[name])),
        ]
        lines.append(f"| {name} | " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def at_equal_j(points: pd.DataFrame, methods: list[str] = GAP, share: float = 1.0) -> pd.DataFrame:
    """Each quantity of each method where its J is the best that all reach in that cell, by lines between checkpoints.

    Columns the quantities, rows cell and method; ``at`` is that J. A method's curve ends at its best J. ``share``
    takes a part of the gain from the start up to that J.
    """
    rows = []
    quantities = ["nll", "length", "score", "J_kl"]
    for cell, own in points.groupby(CELL):
        start = own[own["method"] == "start"].tail(1)
        curves = {
            m: pd.concat([start.assign(step=0), own[own["method"] == m].sort_values("step")])
            for m in methods
            if (own["method"] == m).any()
        }
        if len(start) == 0 or len(curves) < len(methods):
            continue
        begun = float(start["J"].iloc[0])
        level = begun + share * (min(curve["J"].max() for curve in curves.values()) - begun)
        for method, curve in curves.items():
            rising = curve[curve["J"].cummax() == curve["J"]]  # up to the first time that J is reached
            rows.append(
                {
                    **dict(zip(CELL, cell, strict=True)),
                    "method": method,
                    "at": level,
                    "gain": level - begun,
                    "step": float(np.interp(level, rising["J"], rising["step"])),
                    **{q: float(np.interp(level, rising["J"], rising[q])) for q in quantities},
                }
            )
    return pd.DataFrame(rows)


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


def main() -> None:
    """Collect what is measured, then write everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="?", help="folder of kvar study estimators; default the data beside")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of data, tables and figures")
    args = parser.parse_args()
    if args.runs is not None:
        gradients, points = collect(args.runs)
        gradients.to_parquet(args.output / "gradients.parquet", index=False)
        points.to_parquet(args.output / "points.parquet", index=False)
    gradients = pd.read_parquet(args.output / "gradients.parquet")
    points = pd.read_parquet(args.output / "points.parquet")
    (args.output / "table.md").write_text(table(gradients), encoding="utf-8")
    cells = wide(gradients, "trace").index
    by_pair = [
        f"## {task}, {student} student\n\n{table(gradients, cells[own])}"
        for (task, student), own in pd.Series(range(len(cells)), index=cells).groupby(level=PAIR, sort=False)
    ]
    (args.output / "by_pair.md").write_text("\n".join(by_pair), encoding="utf-8")
    sections = {"N1, N2": orderings(gradients)}
    if (gradients["method"] != "start").any():
        decided, matrix = used_up(gradients)
        sections |= {"D1": decided, f"Signed root of the efficiency of a step of {BATCH} toward the data": matrix}
        decided, matrix = used_up(gradients, "cosine")
        sections |= {"D1 by cosines of steps": decided, f"Cosine of a step of {BATCH} with one of the data's": matrix}
    sections |= {"D2, D3, D4": drift(points), "S1": scores(gradients, points), "The score": toward_score(gradients)}
    sections |= {"Scores by task": by_task(points), "Over other units": other_units(gradients, points)}
    text = "\n\n".join(f"## {title}\n\n" + "\n".join(lines) for title, lines in sections.items())
    (args.output / "claims.md").write_text(text + "\n", encoding="utf-8")
    save(ranked(gradients), args.output / "ranked")
    save(drifts(points), args.output / "drift")
    if (gradients["method"] != "start").any():
        save(directions(gradients), args.output / "directions")
    print(text)


if __name__ == "__main__":
    main()
