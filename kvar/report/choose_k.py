"""``kvar choose-k``: which kernel serves a step of M prompts x R rollouts best, from probes of one run or its seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvar.analysis.frames.reference import target_words
from kvar.intervals import Interval
from kvar.records import Run
from kvar.report.words.choice import CRITERIA_SHOWN, untold, verdict_of
from kvar.results.choices import CRITERIA, Choice, choices, probe_at

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["choose_k", "choose_k_figure"]

_HEADS = {"efficiency": "efficiency", "mse": "squared error"}


def choose_k(
    runs: Run | Sequence[Run],
    prompts: Sequence[int],
    rollouts: Sequence[int],
    *,
    step: int | str = "last",
    group: str = "all",
    reference: str | None = None,
    plot: str | Path | None = None,
) -> str:
    """Tables of every (M, R): efficiency (11'), mean squared error (10), how often each kernel is best, and a verdict.

    Where |g*|^2 of the target is not told from zero, squared errors alone, and how many prompts would tell it.

    Args:
        runs: with a probe; several are combined as seeds of one run, with intervals from the spread among them.
        prompts: values of M.
        rollouts: values of R.
        step: training step of the probe, or "last".
        group: parameter group.
        reference: unbiased estimator, or an objective ("J", "J_kl", "score"); by default J's.
        plot: file of a figure to draw as well, as PNG and SVG.

    Raises:
        ValueError: as :func:`kvar.results.choices.choices`.
    """
    several = [runs] if isinstance(runs, Run) else list(runs)
    designs = choices(several, prompts, rollouts, step=step, group=group, reference=reference)
    lines = [f"{run.path}: {probe} at step {at}" for run in several for probe, at in [probe_at(run, step)]]
    told = next(choice for choice in designs if not choice.reason)
    lines.append(f"parameter group {group}; brackets are 95 % intervals over {told.units} {told.unit}")
    lines.append(f"efficiency and squared error are toward {target_words(told.reference)}")
    for choice in designs:
        ones = ("" if count == 1 else "s" for count in (choice.prompts, choice.rollouts))
        design = f"steps of {choice.prompts} prompt{next(ones)} x {choice.rollouts} rollout{next(ones)}"
        lines += ["", design, *_rows(choice)]
        if choice.reason:
            lines.append(f"not told: {choice.reason}")
            continue
        if (why := untold(choice)) is not None:
            lines.append(why)
        else:
            lines += [f"best by {what}: {verdict_of(choice, name)}" for name, what in CRITERIA_SHOWN.items()]
        if choice.silent:
            lines.append(
                "the probe saw no noise: all its responses have one and the same gradient, so only bias counts"
            )
    if plot is not None:
        import matplotlib

        matplotlib.use("Agg")
        from kvar.plots import save

        lines += ["", *(f"figure: {path}" for path in save(choose_k_figure(designs), plot))]
    return "\n".join(lines)


def choose_k_figure(designs: Sequence[Choice]) -> Figure:
    """Efficiency and squared error against K side by side, a line a design; only kernels with a K are drawn.

    Raises:
        ValueError: no efficiency is resolved at all.
    """
    from matplotlib.figure import Figure

    from kvar import plots

    frame = _statistics(designs)
    with plots.context():
        figure = Figure(figsize=(plots.DOUBLE_WIDTH, 3.1), layout="constrained")
        left, right = figure.subplots(1, 2)
        plots.efficiency_against_k(frame, ax=left)
        plots.mse_against_k(frame, ax=right)
        for axes in (left, right):
            axes.get_legend().set_title("prompts x rollouts (trajectories)", {"size": 7.0})
    return figure


def _statistics(designs: Sequence[Choice]) -> pd.DataFrame:
    """A statistics frame with designs in place of students, ordered by their batch."""
    import pandas as pd

    from kvar.analysis.frames.summary import steps_of

    rows = []
    for choice in designs:
        label = f"{choice.prompts} x {choice.rollouts}"
        for row in choice.table.to_dict("records"):
            kernel = str(row["kernel"])
            base = (label, choice.prompts * choice.rollouts, 0, "all", kernel, steps_of(kernel))
            for name in CRITERIA:
                value, low, high, best = (row[f"{name}{end}"] for end in ("", "_low", "_high", "_best"))
                rows.append((*base, name, value, low, high, choice.units))
                chance = "best_probability" if name == "efficiency" else "mse_best_probability"
                rows.append((*base, chance, best, math.nan, math.nan, choice.units))
    names = ["student", "parameters", "step", "group", "kernel", "k", "statistic", "value", "low", "high", "n"]
    return pd.DataFrame(rows, columns=names)


def _rows(choice: Choice) -> list[str]:
    columns, body = ["kernel"], [[str(kernel)] for kernel in choice.table["kernel"]]
    rows: list[dict[str, Any]] = choice.table.to_dict("records")  # type: ignore[assignment]
    if not rows:
        return []
    told = untold(choice) is None
    for name in CRITERIA if told else ["mse"]:
        columns += [_HEADS[name], *(["P(best)"] if told else [])]
        for line, row in zip(body, rows, strict=True):
            line.append(Interval(row[name], row[f"{name}_low"], row[f"{name}_high"]).compact())
            line += [_share(row[f"{name}_best"])] if told else []
    widths = [max(len(line[i]) for line in [columns, *body]) for i in range(len(columns))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in [columns, *body]]  # fmt: skip


def _share(probability: float) -> str:
    return "-" if math.isnan(probability) else f"{probability:.2f}"
