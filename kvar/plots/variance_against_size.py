"""Figure: does the effect of K depend on how large the student is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from kvar.analysis.frames.statistics_frame import select
from kvar.analysis.statistic_table import label_of
from kvar.plots.parts.draw import draw_line, ends_of, log_if_positive
from kvar.plots.parts.style import COLUMN_WIDTH, context, legend_above, new_axes, series
from kvar.plots.parts.ticks import k_label, size_axis

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from kvar.intervals.power_law import PowerLaw

__all__ = ["variance_against_size"]


def variance_against_size(
    frame: pd.DataFrame,
    *,
    statistic: str = "trace",
    group: str = "all",
    step: int | str = "last",
    exponents: bool = True,
    width: float = COLUMN_WIDTH,
    ax: Axes | None = None,
) -> Axes:
    """A statistic, tr Cov(g) of theory.md eq. (8) unless told, against the student's parameters: one line a K.

    With ``statistic="trace_ratio"`` flat lines say that the effect of K does not depend on size; with
    "variance_per_score_power" that variance grows as tr F does, eq. (16); "score_power" is tr F itself, one line.
    Where three sizes or more have positive values and intervals, a power law is fitted by weighted least squares, drawn
    pale, and its exponent with its 95 % half-width stands in the legend.

    Args:
        frame: a statistics frame with the statistic.
        statistic: a name of ``kvar.plots.STATISTICS``.
        group: parameter group.
        step: training step, or "last".
        exponents: fit power laws.
        width: inches of a fresh figure.
        ax: axes to draw on instead of a fresh figure.

    Raises:
        ValueError: the frame is empty or lacks a column or the statistic; the message names it.
    """
    measured = select(frame, statistic, group=group, step=step)
    if statistic == "score_power":
        measured = measured.drop_duplicates(["student", "step"]).assign(kernel="tr F")
    kernels = list(dict.fromkeys(measured.sort_values("k", kind="stable")["kernel"]))
    with context():
        ax = new_axes(ax, width=width)
        size_axis(ax, measured["parameters"])
        fitted = False
        for i, look in enumerate(series(kernels)):
            rows = measured[measured["kernel"] == look.label].sort_values("parameters")
            x = rows["parameters"].to_numpy(dtype=float) * 1.025 ** (i - (len(kernels) - 1) / 2)
            law = _law(rows) if exponents else None
            if law is None:
                draw_line(ax, x, rows, look, gid=f"measured:{look.label}")
                continue
            name = look.label if statistic == "score_power" else f"K={k_label(float(rows['k'].iloc[0]))}"
            shown = replace(look, label=f"{name}: {law.exponent:.2f} ± {law.exponent - law.low:.2f}")
            draw_line(ax, x, rows, shown, gid=f"measured:{look.label}", line="none")
            ends = np.array([rows["parameters"].min() / 1.2, rows["parameters"].max() * 1.2])
            ax.plot(
                ends, law.scale * ends**law.exponent, color=look.colour, linestyle=look.line, linewidth=0.9, alpha=0.6,
                gid=f"law:{look.label}", zorder=1,
            )  # fmt: skip
            fitted = True
        log_if_positive(ax, measured)
        ax.set_ylabel(label_of(statistic))
        legend_above(ax, title="exponent of size, 95 % interval" if fitted else None, short=fitted)
    return ax


def _law(rows: pd.DataFrame) -> PowerLaw | None:
    """The power law of one line; None where sizes are too few, or a number is not positive or not known."""
    from kvar.intervals.power_law import power_law

    value, low, high = ends_of(rows)
    sizes = rows["parameters"].to_numpy(dtype=float)
    with np.errstate(all="ignore"):
        error = (np.log(high) - np.log(low)) / (2 * 1.96)
    if len(set(sizes)) < 3 or not (np.isfinite(error).all() and (error > 0).all() and (value > 0).all()):
        return None
    return power_law(sizes, value, error)
