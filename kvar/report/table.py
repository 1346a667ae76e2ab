"""The study's result as a plain text table for the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kvar.plots.frame import check_frame, students
from kvar.plots.style import student_series
from kvar.plots.ticks import k_label
from kvar.report.cells import Best, Cell, best_k, cells

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TABLE_WIDTH", "compact", "render_table"]

TABLE_WIDTH = 110
_COLUMNS = {"trace_ratio": "variance / K=1", "snr": "SNR", "bias_sq": "bias^2", "efficiency": "efficiency"}


def compact(cell: Cell | None) -> str:
    """An estimate and its interval in at most 21 characters, an exponent shared by all three numbers.

    >>> compact(Cell(0.0286, 0.024, 0.034)), compact(Cell(0.00037, 0.0003, 0.00044)), compact(Cell(1.0)), compact(None)
    ('0.029 [0.024, 0.034]', '3.7 [3.0, 4.4]e-4', '1.0', '-')
    """
    if cell is None:
        return "-"
    numbers = [cell.value, cell.low, cell.high] if cell.known else [cell.value]
    if not all(math.isfinite(v) for v in numbers):
        return f"{cell.value:.2g}"
    top = max(abs(v) for v in numbers)
    power = math.floor(math.log10(top)) if top > 0 else 0
    shared = power if not -2 <= power <= 2 else 0
    digits = max(0, min(3, 1 - (power - shared)))
    texts = [f"{round(v / 10**shared, digits) + 0.0:.{digits}f}" for v in numbers]
    ending = f"e{shared}" if shared else ""
    return f"{texts[0]} [{texts[1]}, {texts[2]}]{ending}" if len(texts) == 3 else texts[0] + ending


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
    check_frame(frame)
    table = {name: cells(frame, name, group=group, step=step, only_k=False) for name in _COLUMNS}
    if not any(table.values()):
        there = ", ".join(sorted(map(str, frame["statistic"].unique())))
        raise ValueError(f"the statistics frame has none of {', '.join(_COLUMNS)} in group {group!r}; it has: {there}.")
    chances = cells(frame, "best_probability", group=group, step=step, only_k=False)
    best = best_k(frame, group=group, step=step)
    rows = frame[frame["group"] == group].sort_values("k", kind="stable")
    blocks: list[tuple[str, list[list[str]]]] = []
    for name in students(frame):
        mine = rows[rows["student"] == name]
        kernels = {kernel: k for kernel, k in zip(mine["kernel"], mine["k"], strict=True)}
        lines = []
        for kernel, k in kernels.items():
            found = [table[statistic].get(name, {}).get(kernel) for statistic in _COLUMNS]
            if all(cell is None for cell in found):
                continue
            chance = chances.get(name, {}).get(kernel)
            mark = "*" if name in best and k == best[name].k else ""
            lines.append([f"{kernel}{mark}", *map(compact, found), "-" if chance is None else f"{chance.value:.2f}"])
        if lines:
            blocks.append((_heading(frame, name, mine, best), lines))
    return _layout(["kernel", *_COLUMNS.values(), "P(best)"], blocks)


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
