"""Figure: what each K pays in bias for what it saves in variance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kvar.analysis.frames.statistics_frame import select
from kvar.intervals.jackknife import signed_root
from kvar.plots.parts.draw import log_if_positive, zero_line
from kvar.plots.parts.labels import label_points
from kvar.plots.parts.style import COLUMN_WIDTH, context, legend_above, new_axes, student_series
from kvar.plots.parts.ticks import k_label

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["bias_against_variance"]

_ENDS = ["value", "low", "high"]


def bias_against_variance(
    frame: pd.DataFrame,
    *,
    group: str = "all",
    step: int | str = "last",
    others: bool = False,
    width: float = COLUMN_WIDTH,
    ax: Axes | None = None,
) -> Axes:
    """|E g^K - g*|, theory.md eq. (7), against tr Cov(g^K), eq. (8): one path a student, points labelled by K.

    The bias is the signed root of its unbiased square: below zero means that the square was estimated negative, that
    is, not distinguished from zero. Intervals are drawn both ways. Kernels without a K, if wanted, stand alone, hollow.

    Args:
        frame: a statistics frame with ``bias_sq`` and ``trace``.
        group: parameter group.
        step: training step, or "last".
        others: show kernels without a K too, each with its name.
        width: inches of a fresh figure.
        ax: axes to draw on instead of a fresh figure.

    Raises:
        ValueError: the frame is empty or lacks a column or a statistic, or no kernel has both; the message names it.
    """
    key = ["student", "kernel"]
    trace = select(frame, "trace", group=group, step=step, only_k=not others)
    bias = select(frame, "bias_sq", group=group, step=step, only_k=not others)
    both = trace.merge(bias[[*key, *_ENDS]], on=key, suffixes=("", "_bias"))
    if not len(both):
        raise ValueError("the statistics frame has no kernel with both 'trace' and 'bias_sq' at one step of a student.")
    with context():
        ax = new_axes(ax, width=width, ratio=0.95)
        zero_line(ax)
        points, paths = [], []
        for name, look in student_series(frame, both).items():
            rows = both[both["student"] == name]
            x = {end: rows[end].to_numpy(dtype=float) for end in _ENDS}
            y = {end: signed_root(rows[f"{end}_bias"].to_numpy(dtype=float)) for end in _ENDS}
            crosses = [
                ax.hlines(y["value"], x["low"], x["high"], color=look.colour, linewidth=0.8, alpha=0.7),
                ax.vlines(x["value"], y["low"], y["high"], color=look.colour, linewidth=0.8, alpha=0.7),
            ]
            for cross, axis in zip(crosses, ("x", "y"), strict=True):
                cross.set_gid(f"{name}:{axis}-interval")
            paths += [np.asarray(segment) for cross in crosses for segment in cross.get_segments()]
            has_k = rows["k"].notna().to_numpy()
            ax.plot(
                x["value"][has_k], y["value"][has_k], color=look.colour, marker=look.marker, linestyle=look.line,
                linewidth=0.9, label=look.label, gid=f"path:{name}", zorder=3,
            )  # fmt: skip
            paths.append(np.column_stack([x["value"][has_k], y["value"][has_k]]))
            if not has_k.all():
                ax.plot(
                    x["value"][~has_k], y["value"][~has_k], color=look.colour, marker=look.marker, linestyle="none",
                    markerfacecolor="white", gid=f"others:{name}", zorder=3,
                )  # fmt: skip
            for i, (k, kernel) in enumerate(zip(rows["k"], rows["kernel"], strict=True)):
                text = str(kernel) if np.isnan(k) else f"K={k_label(k)}" if i == 0 else k_label(k)
                points.append((float(x["value"][i]), float(y["value"][i]), text, look.colour))
        log_if_positive(ax, both, axis="x")
        ax.margins(y=0.1)
        ax.set_xlabel("tr Cov(g)")
        ax.set_ylabel("bias |E g - g*| (signed root)")
        legend_above(ax)
        label_points(ax, points, paths)
    return ax
