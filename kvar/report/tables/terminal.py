"""The study's result as a plain text table for the terminal."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, TypeAlias

from kvar.analysis.frames.reference import objective_of, target_words
from kvar.analysis.frames.statistics_frame import at_step, check_frame, students
from kvar.estimators import TRAINED
from kvar.intervals.probability_of_best import SURE
from kvar.plots.parts.style import student_series
from kvar.report.words.choice import clause
from kvar.results.by_kernel import best_of_students, cells

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TABLE_WIDTH", "filled_table", "legend", "render_table"]

TABLE_WIDTH = 110
"""Of running text; rows with long names take a few columns more."""
_WIDEST = 120
_COLUMNS = {"trace_ratio": "variance / K=1", "snr": "SNR", "bias_sq": "bias^2", "efficiency": "efficiency"}
_HEAD = ["kernel", *_COLUMNS.values(), "P(best)"]


def render_table(
    frame: pd.DataFrame,
    *,
    group: str = "all",
    step: int | str = "last",
    batch: float | None = None,
    rollouts_per_prompt: float = 1,
) -> str:
    """Variance ratio to K = 1, SNR, squared bias and efficiency, eqs. (8), (12), (7), (11'), each with its interval.

    A column without any number is left out. One block a student, smallest first, headed by the estimator that points
    best, or by those that cannot be told apart (:func:`kvar.intervals.candidates`), which ``*`` marks. A legend stands
    below.

    Args:
        frame: a statistics frame; a statistic that was not measured shows as "-".
        group: parameter group.
        step: training step, or "last".
        batch: trajectories of the step that the frame is for, where the legend is to say so.
        rollouts_per_prompt: responses of that step to each of its prompts.

    Returns:
        Lines of at most 110 columns, rows of 120, in ASCII but for names in the frame.

    Raises:
        ValueError: the frame is empty, lacks a column, or holds none of the table's statistics in the group.
    """
    return "\n".join(
        [_layout(*filled_table(frame, group=group, step=step)), *legend(frame, batch, rollouts_per_prompt)]
    )


def legend(frame: pd.DataFrame, batch: float | None = None, rollouts_per_prompt: float = 1) -> list[str]:
    """What the table's words mean, in lines of at most 110 columns.

    Args:
        frame: what the table shows.
        batch: trajectories of the step that the frame is for, where known.
        rollouts_per_prompt: responses of that step to each of its prompts.
    """
    of = "a step" if batch is None else f"a step of {batch:g}"
    if batch is not None and rollouts_per_prompt > 1:
        of += f" responses to {batch / rollouts_per_prompt:g} prompts"
    text = (
        "[low, high]: 95 % intervals from n independent draws. SNR: squared length of the mean gradient over the "
        f"variance of {of}; the squared length is estimated without bias and may fall below 0."
    )
    known = set(frame.loc[frame["value"].notna(), "statistic"])
    if "efficiency" in known:
        text += (
            " Efficiency: how well such a step points along the true gradient; 1 is perfect, below 0 is away from it."
        )
    if "best_probability" in known:
        text += (
            " P(best): how often the largest efficiency is its; * may be the best, all others together have less than "
            f"{1 - SURE:.2f}."
        )
    if TRAINED in set(frame["kernel"]):
        text += (
            " trained: what the trainer follows. Its scale is that of the loss, so that its variance and bias are not "
            "held beside others'."
        )
    if "reference" in frame.attrs and "bias_sq" in known:
        text += _toward(frame, "efficiency" in known)
    if (frame["k"] > 1).any():
        text += (
            " gap: how far a token's logit lies below the teacher's favourite; K=1 counts all that follow, K=4 every "
            "fourth, immediate the token's alone."
        )
    return textwrap.wrap(text, TABLE_WIDTH)


def _toward(frame: pd.DataFrame, resolved: bool) -> str:
    """What bias and efficiency are toward, whether there is an efficiency, and which rows have another objective."""
    reference = str(frame.attrs["reference"])
    toward = objective_of(reference)
    names = [str(name) for name in frame["kernel"].unique()]
    others = sorted(str(o) for o in {objective_of(name) for name in names} - {None, toward})
    also = f" (also measured: {', '.join(others)})" if others else ""
    text = f" Bias^2{' and efficiency are' if resolved else ' is'} toward {target_words(reference)}{also}."
    if toward == "J":
        text += " J: the expected sum of the teacher's rewards."
    if toward != "J_kl" and any(name.startswith("kl ") for name in names):
        text += " kl rows: the gradient of another objective, reverse KL; their SNR compares noise, not worth."
    if "data" in names:
        text += " data: likelihood of the references, a target."
    if "efficiency" in set(frame["statistic"]) and not resolved:
        text += " These draws do not resolve that direction, so there is no efficiency: measure more prompts."
    return text


Blocks: TypeAlias = list[tuple[str, list[list[str]]]]
"""A heading a student, and the cells of its lines."""


def filled_table(frame: pd.DataFrame, *, group: str = "all", step: int | str = "last") -> tuple[list[str], Blocks]:
    """What :func:`render_table` shows: the heads of the columns that hold a number, and the blocks below them.

    Raises:
        ValueError: as :func:`render_table`.
    """
    blocks = _blocks(frame, group=group, step=step)
    lines = [line for _, block in blocks for line in block]
    filled = [column for column in range(len(_HEAD)) if any(line[column] != "-" for line in lines)]
    return [_HEAD[c] for c in filled], [(head, [[line[c] for c in filled] for line in block]) for head, block in blocks]


def _blocks(frame: pd.DataFrame, *, group: str, step: int | str) -> Blocks:
    check_frame(frame)
    table = {name: cells(frame, name, group=group, step=step, only_k=False) for name in _COLUMNS}
    if not any(table.values()):
        known = ", ".join(sorted(map(str, frame["statistic"].unique())))
        raise ValueError(f"the statistics frame has none of {', '.join(_COLUMNS)} in group {group!r}; it has: {known}.")
    chances = cells(frame, "best_probability", group=group, step=step, only_k=False)
    best = best_of_students(frame, group=group, step=step)
    rows = frame[(frame["group"] == group) & frame["statistic"].isin(_COLUMNS)].sort_values("k", kind="stable")
    labels = student_series(frame)
    blocks: Blocks = []
    for name in students(frame):
        mine = rows[rows["student"] == name]
        left = best.get(name, {})
        lines = []
        for kernel in mine["kernel"].unique():
            estimates = [table[statistic].get(name, {}).get(kernel) for statistic in _COLUMNS]
            if all(cell is None for cell in estimates):
                continue
            chance = chances.get(name, {}).get(kernel)
            pointing = estimates[-1]
            if pointing is not None and (pointing.low, pointing.high) == (-1.0, 1.0):  # nothing is known
                estimates[-1] = None
            shown = ["-" if cell is None else cell.compact() for cell in estimates]
            mark = "*" if kernel in left else ""
            lines.append([f"{kernel}{mark}", *shown, "-" if chance is None else f"{chance.value:.2f}"])
        if lines:
            ns = sorted({int(n) for n in at_step(mine, step)["n"]})
            n = f"n = {ns[0]}" if len(ns) == 1 else f"n = {ns[0]} to {ns[-1]}"
            said = f"; best {'is ' * (len(left) != 1)}{clause(left)}" if name in best else ""
            blocks.append((f"{labels[name].label}, {n}{said}", lines))
    return blocks


def _layout(header: list[str], blocks: Blocks) -> str:
    """A heading, the columns' heads and the rows of each block; a long name goes on in its column, indented."""
    lines = [header, *(line for _, block in blocks for line in block)]
    widths = [max(len(line[c]) for line in lines) for c in range(len(header))]
    room = _WIDEST - sum(widths[1:]) - 2 * (len(header) - 1)
    widths[0] = min(widths[0], max(room, 12))

    def draw(line: list[str]) -> list[str]:
        first, *rest = textwrap.wrap(line[0], widths[0], subsequent_indent="  ")
        cells = [t.rjust(w) for t, w in zip(line[1:], widths[1:], strict=True)]
        return ["  ".join([first.ljust(widths[0]), *cells]), *rest]

    rule = "-" * (sum(widths) + 2 * (len(header) - 1))
    out: list[str] = []
    for heading, block in blocks:
        out += [
            *textwrap.wrap(heading, TABLE_WIDTH),
            *draw(header),
            rule,
            *(text for line in block for text in draw(line)),
        ]
        out.append(rule)
    return "\n".join(out)
