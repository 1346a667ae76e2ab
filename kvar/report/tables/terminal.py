"""The study's result as a plain text table for the terminal."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from kvar.analysis.frames.reference import objective_of, target_words
from kvar.analysis.frames.statistics_frame import at_step, check_frame, students
from kvar.intervals.probability_of_best import SURE
from kvar.plots.parts.style import student_series
from kvar.report.words.choice import clause
from kvar.results.by_kernel import best_of_students, cells

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["HEAD", "TABLE_WIDTH", "legend", "render_table", "table_blocks"]

TABLE_WIDTH = 110
_COLUMNS = {"trace_ratio": "variance / K=1", "snr": "SNR", "bias_sq": "bias^2", "efficiency": "efficiency"}
HEAD = ["kernel", *_COLUMNS.values(), "P(best)"]
"""Heads of the table's columns."""


def render_table(
    frame: pd.DataFrame, *, group: str = "all", step: int | str = "last", batch: float | None = None
) -> str:
    """Variance ratio to K = 1, SNR, squared bias and efficiency, eqs. (8), (12), (7), (11'), each with its interval.

    One block a student, smallest first, headed by the estimator that points best, or by those that cannot be told
    apart (:func:`kvar.intervals.candidates`), which ``*`` marks. A legend stands below.

    Args:
        frame: a statistics frame; a statistic that was not measured shows as "-".
        group: parameter group.
        step: training step, or "last".
        batch: trajectories of the step that the frame is for, where the legend is to say so.

    Returns:
        Lines of at most 110 columns, in ASCII but for names in the frame.

    Raises:
        ValueError: the frame is empty, lacks a column, or holds none of the table's statistics in the group.
    """
    return "\n".join([_layout(HEAD, table_blocks(frame, group=group, step=step)), *legend(frame, batch)])


def legend(frame: pd.DataFrame, batch: float | None = None) -> list[str]:
    """What the table's words mean, in lines of at most 110 columns.

    Args:
        frame: what the table shows.
        batch: trajectories of the step that the frame is for, where known.
    """
    of = "" if batch is None else f" of {batch:g} trajectories"
    lines = [
        "[low, high] are 95 % intervals from n independent draws: prompts, where each has several responses. SNR: "
        f"length of the mean gradient over its noise in a step{of}. Efficiency: how well such a step points along the "
        "true gradient, 1 is perfect. P(best): how often it is the largest when the draws are repeated; * may be the "
        f"best, all others together have less than {1 - SURE:.2f}."
    ]
    if "reference" in frame.attrs and bool(frame.loc[frame["statistic"] == "bias_sq", "value"].notna().any()):
        lines.append(_toward(frame))
    if (frame["k"] > 1).any():
        lines.append("K=1 rewards a token by all that follows, K=4 by every fourth, immediate by itself alone.")
    return [line for text in lines for line in textwrap.wrap(text, TABLE_WIDTH)]


def _toward(frame: pd.DataFrame) -> str:
    """What bias and efficiency are toward, which other targets there are, and what a minus sign says."""
    reference = str(frame.attrs["reference"])
    others = {objective_of(str(name)) for name in frame["kernel"].unique()} - {None, objective_of(reference)}
    text = f"Bias^2 and efficiency are toward {target_words(reference)}"
    text += f" (also measured: {', '.join(sorted(map(str, others)))})." if others else "."
    along = frame.loc[frame["statistic"] == "efficiency", "value"]
    if len(along) and bool(along.isna().all()):
        text += " These draws do not resolve that direction, so there is no efficiency: measure more prompts."
    if bool((along < 0).any()):
        text += " An efficiency below zero points away from it."
    return text


def table_blocks(
    frame: pd.DataFrame, *, group: str = "all", step: int | str = "last"
) -> list[tuple[str, list[list[str]]]]:
    """What :func:`render_table` shows, below :data:`HEAD`: a heading a student, and the cells of its lines.

    Raises:
        ValueError: as :func:`render_table`.
    """
    check_frame(frame)
    table = {name: cells(frame, name, group=group, step=step, only_k=False) for name in _COLUMNS}
    if not any(table.values()):
        known = ", ".join(sorted(map(str, frame["statistic"].unique())))
        raise ValueError(f"the statistics frame has none of {', '.join(_COLUMNS)} in group {group!r}; it has: {known}.")
    chances = cells(frame, "best_probability", group=group, step=step, only_k=False)
    best = best_of_students(frame, group=group, step=step)
    rows = frame[(frame["group"] == group) & frame["statistic"].isin(_COLUMNS)].sort_values("k", kind="stable")
    labels = student_series(frame)
    blocks: list[tuple[str, list[list[str]]]] = []
    for name in students(frame):
        mine = rows[rows["student"] == name]
        left = best.get(name, {})
        lines = []
        for kernel in mine["kernel"].unique():
            estimates = [table[statistic].get(name, {}).get(kernel) for statistic in _COLUMNS]
            if all(cell is None for cell in estimates):
                continue
            chance = chances.get(name, {}).get(kernel)
            shown = ["-" if cell is None else cell.compact() for cell in estimates]
            mark = "*" if kernel in left else ""
            lines.append([f"{kernel}{mark}", *shown, "-" if chance is None else f"{chance.value:.2f}"])
        if lines:
            ns = sorted({int(n) for n in at_step(mine, step)["n"]})
            n = f"n = {ns[0]}" if len(ns) == 1 else f"n = {ns[0]} to {ns[-1]}"
            said = f"; best {'is ' * (len(left) != 1)}{clause(left)}" if name in best else ""
            blocks.append((f"{labels[name].label}, {n}{said}", lines))
    return blocks


def _layout(header: list[str], blocks: list[tuple[str, list[list[str]]]]) -> str:
    """Columns as wide as their longest cell; a name that would pass the width has a line of its own above."""
    lines = [header, *(line for _, block in blocks for line in block)]
    widths = [max(len(line[c]) for line in lines) for c in range(len(header))]
    widths[0] = min(widths[0], TABLE_WIDTH - sum(widths[1:]) - 2 * (len(header) - 1))

    def draw(line: list[str]) -> list[str]:
        above = [] if len(line[0]) <= widths[0] else textwrap.wrap(line[0], TABLE_WIDTH)
        cells = [t.rjust(w) for t, w in zip(line[1:], widths[1:], strict=True)]
        return [*above, "  ".join([("" if above else line[0]).ljust(widths[0]), *cells])]

    rule = "-" * (sum(widths) + 2 * (len(header) - 1))
    out = [*draw(header), rule]
    for heading, block in blocks:
        out += [*textwrap.wrap(heading, TABLE_WIDTH), *(text for line in block for text in draw(line)), rule]
    return "\n".join(out)
