"""The study's result as a plain text table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvar.analysis.frames.statistics_frame import check_frame, students
from kvar.plots.parts.style import student_series
from kvar.plots.parts.ticks import k_label
from kvar.results.by_kernel import Best, best_k, cells

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["HEAD", "TABLE_WIDTH", "render_table", "table_blocks"]

TABLE_WIDTH = 110
_COLUMNS = {"trace_ratio": "variance / K=1", "snr": "SNR", "bias_sq": "bias^2", "efficiency": "efficiency"}
HEAD = ["kernel", *_COLUMNS.values(), "P(best)"]
"""Heads of the table's columns."""


def render_table(frame: pd.DataFrame, *, group: str = "all", step: int | str = "last") -> str:
    """Variance ratio to K = 1, SNR, squared bias and efficiency, eqs. (8), (12), (7), (11'), each with its interval.

    One block a student, smallest first, headed by its best K, and by an estimator with a baseline that is likelier to
    be the best than any K; ``*`` marks the K's line. P(best): the probability that an estimator is the best.

    Args:
        frame: a statistics frame; a statistic that was not measured shows as "-".
        group: parameter group.
        step: training step, or "last".

    Returns:
        Lines of at most 110 columns, in ASCII but for names in the frame.

    Raises:
        ValueError: the frame is empty, lacks a column, or holds none of the table's statistics in the group.
    """
    return _layout(HEAD, table_blocks(frame, group=group, step=step))


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
    best = best_k(frame, group=group, step=step)
    rows = frame[frame["group"] == group].sort_values("k", kind="stable")
    blocks: list[tuple[str, list[list[str]]]] = []
    for name in students(frame):
        mine = rows[rows["student"] == name]
        kernels = {kernel: k for kernel, k in zip(mine["kernel"], mine["k"], strict=True)}
        lines = []
        for kernel, k in kernels.items():
            estimates = [table[statistic].get(name, {}).get(kernel) for statistic in _COLUMNS]
            if all(cell is None for cell in estimates):
                continue
            chance = chances.get(name, {}).get(kernel)
            mark = "*" if name in best and k == best[name].k else ""
            shown = ["-" if cell is None else cell.compact() for cell in estimates]
            lines.append([f"{kernel}{mark}", *shown, "-" if chance is None else f"{chance.value:.2f}"])
        if lines:
            blocks.append((_heading(frame, name, mine, best), lines))
    return blocks


def _heading(frame: pd.DataFrame, name: str, mine: pd.DataFrame, best: dict[str, Best]) -> str:
    ns = sorted({int(n) for n in mine["n"]})
    n = f"n = {ns[0]}" if len(ns) == 1 else f"n = {ns[0]} to {ns[-1]}"
    text = f"{student_series(frame)[name].label}, {n}"
    if name in best:
        p = best[name].probability
        label = k_label(best[name].k).replace("∞", "inf (immediate)")
        text += f", best K = {label}"
        if p is not None:
            other = best[name].other
            text += f" (probability {p:.2f}" + (f"; {other[0]}: {other[1]:.2f})" if other else ")")
    return text


def _layout(header: list[str], blocks: list[tuple[str, list[list[str]]]]) -> str:
    """Columns as wide as their longest cell; the kernel's name is cut where the line would pass the width."""
    lines = [header, *(line for _, block in blocks for line in block)]
    widths = [max(len(line[c]) for line in lines) for c in range(len(header))]
    widths[0] = min(widths[0], TABLE_WIDTH - sum(widths[1:]) - 2 * (len(header) - 1))

    def cut(text: str, width: int) -> str:
        return text if len(text) <= width else text[: width - 2] + ".." if width > 2 else text[:width]

    def draw(line: list[str]) -> str:
        return "  ".join(
            [cut(line[0], widths[0]).ljust(widths[0]), *(t.rjust(w) for t, w in zip(line[1:], widths[1:], strict=True))]
        )

    rule = "-" * (sum(widths) + 2 * (len(header) - 1))
    out = [draw(header), rule]
    for heading, block in blocks:
        out += [cut(heading, TABLE_WIDTH), *map(draw, block), rule]
    return "\n".join(out)
