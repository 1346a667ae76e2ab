"""Figure: whether a less noisy gradient made a better student."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kvar.analysis.frames.statistics_frame import need_columns
from kvar.intervals.over_seeds import mean_with_interval
from kvar.intervals.rank_correlation import rank_correlation
from kvar.plots.parts.draw import fit_log, zero_line
from kvar.plots.parts.panels import student_panels
from kvar.plots.parts.style import DOUBLE_WIDTH, Series, context, series

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["score_against_variance"]


def score_against_variance(
    points: pd.DataFrame,
    *,
    x_label: str = "efficiency η at the start",
    y_label: str = "gain",
    log_x: bool = False,
    width: float = DOUBLE_WIDTH,
) -> Figure:
    """What each method's student gained against how noisy its estimator was: a row of panels a task, a panel a student.

    A mark is a method: its means over seeds, with t intervals over seeds both ways (4.3 standard errors at
    three seeds; axes are fitted to seeds and means, intervals run off). Faint points of the same look are its seeds.
    The corner tells Spearman's rank correlation of x and y across the methods, the mean over seeds, where every method
    has every seed: how far x orders y.

    Args:
        points: task, student, parameters, method, seed, x, y, one row a seed; y is a change from the start of which
            more is better. Rows without an x or a y are left out.
        x_label: of the horizontal axes.
        y_label: of the vertical ones.
        log_x: horizontal axes are logarithmic, for variances; means of x are then geometric.
        width: inches.

    Raises:
        ValueError: a column is missing, or no row has both x and y.
    """
    columns = ("task", "student", "parameters", "method", "seed", "x", "y")
    need_columns(points, columns, "frame of gains against noise")
    rows = points[np.isfinite(points["x"]) & np.isfinite(points["y"])]
    if not len(rows):
        raise ValueError("no method has both an estimator measured at the start and an outcome: nothing to compare.")
    looks = series([str(name) for name in rows["method"].unique()])

    def draw(ax: Axes, rows: pd.DataFrame, place: str) -> None:
        _panel(ax, rows, looks, log_x)
        rho = _rho(rows)
        if np.isfinite(rho):
            corner: dict[str, Any] = {"transform": ax.transAxes, "ha": "right", "va": "top", "color": "0.3"}
            ax.text(0.98, 0.98, f"$\\rho$ = {rho:.2f}", fontsize=6.5, **corner).set_gid(f"rho:{place}")

    with context():
        return student_panels(rows, draw, labels=(x_label, y_label), width=width, height=1.75, label_size=7)


def _panel(ax: Axes, rows: pd.DataFrame, looks: Sequence[Series], log_x: bool) -> None:
    """Draw one student's methods."""
    from matplotlib.ticker import LogLocator

    zero_line(ax)
    means = []
    for look in looks:
        name, seeds = look.label, rows[rows["method"] == look.label]
        if not len(seeds):
            continue
        x = mean_with_interval(seeds["x"].to_numpy(dtype=float), scale="log" if log_x else "plain")
        y = mean_with_interval(seeds["y"].to_numpy(dtype=float))
        shared: dict[str, Any] = {"color": look.colour, "marker": look.marker, "linestyle": "none"}
        faint: dict[str, Any] = {"markersize": 2.6, "alpha": 0.35, "markeredgewidth": 0, "zorder": 2}
        ax.plot(seeds["x"], seeds["y"], **shared, **faint, gid=f"seeds:{name}")
        ax.plot([x[0]], [y[0]], **shared, label=name, gid=f"mean:{name}", zorder=3)
        bars: dict[str, Any] = {"color": look.colour, "linewidth": 0.7, "alpha": 0.5, "zorder": 1}
        ax.hlines([y[0]], x[1], x[2], **bars).set_gid(f"x:{name}")
        ax.vlines([x[0]], y[1], y[2], **bars).set_gid(f"y:{name}")
        means.append((x[0], y[0]))
    xs, ys = np.array(means).T
    if log_x:
        ends = [float(rows["x"].min()) / 1.6, float(rows["x"].max()) * 1.6]
        fit_log(ax, ends, axis="x")
        subs = (1.0,) if ends[1] > 60 * ends[0] else (1.0, 3.0)
        ax.xaxis.set_major_locator(LogLocator(subs=subs, numticks=6))
    else:
        ax.set_xlim(*_room(np.concatenate([rows["x"].to_numpy(dtype=float), xs])))
    ax.set_ylim(*_room(np.concatenate([rows["y"].to_numpy(dtype=float), ys, [0.0]])))


def _room(values: np.ndarray) -> tuple[float, float]:
    """Limits with room around what is to be seen."""
    low, high = float(values.min()), float(values.max())
    pad = 0.2 * ((high - low) or abs(high) or 1.0)
    return low - pad, high + pad


def _rho(rows: pd.DataFrame) -> float:
    """Mean over seeds of the rank correlation across methods; NaN where some method lacks a seed."""
    x = rows.pivot(index="seed", columns="method", values="x")
    y = rows.pivot(index="seed", columns="method", values="y")
    return rank_correlation(x.to_numpy(dtype=float), y.to_numpy(dtype=float)).rho
