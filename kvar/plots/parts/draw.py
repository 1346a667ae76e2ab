"""Drawing of one line with its intervals, and the choice of the value axis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kvar.plots.parts.style import Series

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

__all__ = [
    "by_student", "dodge", "draw_band", "draw_intervals", "draw_line", "ends_of", "fit_log", "log_if_positive",
    "power_label", "zero_line",
]  # fmt: skip


def dodge(index: int, count: int, step: float = 0.07) -> float:
    """Sideways shift that keeps the intervals of ``count`` lines from lying on each other.

    >>> [round(dodge(i, 3), 2) for i in range(3)]
    [-0.07, 0.0, 0.07]
    """
    return (index - (count - 1) / 2) * step


def by_student(
    looks: Mapping[str, Series], rows: pd.DataFrame, places: Mapping[float, float], spread: float
) -> Iterator[tuple[str, Series, pd.DataFrame, np.ndarray]]:
    """The students that have some of the rows: name, style, its rows, and where these stand on the K axis.

    Args:
        looks: student -> style, of all students in the figure.
        rows: those that are drawn.
        places: of :func:`kvar.plots.parts.ticks.k_axis`.
        spread: sideways shift from one student to the next, as :func:`dodge` takes it.
    """
    for i, (name, look) in enumerate(looks.items()):
        of_student = rows[rows["student"] == name]
        if len(of_student):
            x = of_student["k"].map(places).to_numpy(dtype=float) + dodge(i, len(looks), spread)
            yield name, look, of_student, x


def draw_line(
    ax: Axes, x: np.ndarray, rows: pd.DataFrame, look: Series, *, gid: str, line: object | None = None
) -> Line2D:
    """Filled markers joined by a line, a vertical bar for each interval.

    Args:
        ax: axes.
        x: (n,) positions.
        rows: n rows of a statistics frame: value, low, high; an unknown (NaN) end draws no bar.
        look: style; its label goes to the legend.
        gid: name of the line in the drawing and the SVG; the bars' is ``gid + ":interval"``.
        line: line style in place of the style's own.
    """
    value, low, high = ends_of(rows)
    style = look.line if line is None else line
    (drawn,) = ax.plot(
        x, value, color=look.colour, marker=look.marker, linestyle=style, label=look.label, gid=gid, zorder=3
    )
    draw_intervals(ax, x, low, high, gid=f"{gid}:interval", color=look.colour, linewidth=1.0, alpha=0.75, zorder=2)
    return drawn


def draw_intervals(
    ax: Axes, at: np.ndarray, low: np.ndarray, high: np.ndarray, *, gid: str, flat: bool = False, **style: Any
) -> None:
    """A bar for each interval whose ends are known: upright, or ``flat``."""
    known = np.isfinite(low) & np.isfinite(high)
    if known.any():
        (ax.hlines if flat else ax.vlines)(at[known], low[known], high[known], **style).set_gid(gid)


def draw_band(ax: Axes, x: np.ndarray, rows: pd.DataFrame, look: Series, *, gid: str) -> None:
    """The interval as a pale band along a line; nothing where it is unknown."""
    _, low, high = ends_of(rows)
    if (np.isfinite(low) & np.isfinite(high)).any():
        ax.fill_between(x, low, high, color=look.colour, alpha=0.15, linewidth=0, zorder=1).set_gid(f"{gid}:interval")


def zero_line(ax: Axes, axis: str = "y") -> None:
    """A thin line where the values of an axis are zero."""
    (ax.axhline if axis == "y" else ax.axvline)(0.0, color="0.7", linewidth=0.7, zorder=0, gid="zero")


def ends_of(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Value, low and high of some rows, as arrays."""
    value, low, high = rows[["value", "low", "high"]].to_numpy(dtype=float).T
    return value, low, high


def fit_log(ax: Axes, *columns: Iterable[float], axis: str = "y") -> None:
    """Make an axis logarithmic and fit it to the positive numbers given; what is not positive runs off its floor."""
    numbers = np.concatenate([np.asarray(list(column), dtype=float) for column in columns])
    positive = numbers[np.isfinite(numbers) & (numbers > 0)]
    low, high = (positive.min(), positive.max()) if len(positive) else (0.1, 1.0)
    pad = max((high / low) ** 0.06, 1.08)
    set_scale, set_limits = (ax.set_yscale, ax.set_ylim) if axis == "y" else (ax.set_xscale, ax.set_xlim)
    set_scale("log", nonpositive="clip")
    set_limits(low / pad, high * pad)
    _thin_log_ticks(ax, axis, high * pad / (low / pad))


def _thin_log_ticks(ax: Axes, axis: str, span: float) -> None:
    """Label decades, and 2 and 5 as well where the axis spans less than two decades or so."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    which = ax.yaxis if axis == "y" else ax.xaxis
    subs = (1.0,) if span > 120 else (1.0, 2.0, 5.0) if span > 6 else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
    which.set_major_locator(LogLocator(subs=subs, numticks=9))
    which.set_minor_formatter(NullFormatter())
    if span <= 120:
        which.set_major_formatter(FuncFormatter(lambda v, _: power_label(v)))


def power_label(value: float) -> str:
    r"""A positive tick value, as a power of ten in mathtext where plain digits would be long.

    >>> [power_label(v) for v in (0.05, 2.0, 500.0, 2e5, 1e6, 3e-5)]
    ['0.05', '2', '500', '$2\\times10^{5}$', '$10^{6}$', '$3\\times10^{-5}$']
    """
    if 1e-3 <= value < 1e4:
        return f"{value:g}"
    digits, power = f"{value:.1e}".split("e")
    mantissa = f"{float(digits):g}"
    return f"$10^{{{int(power)}}}$" if mantissa == "1" else rf"${mantissa}\times10^{{{int(power)}}}$"


def log_if_positive(ax: Axes, rows: pd.DataFrame, *more: Iterable[float], axis: str = "y") -> bool:
    """A logarithmic value axis where every value is positive; else a linear one with a line at zero.

    On the logarithmic axis an interval that reaches zero runs off the floor. Its end does not stretch the axis.

    Args:
        ax: axes.
        rows: what is drawn: value, low, high.
        more: other numbers that the logarithmic axis has to hold.
        axis: "y" or "x", which shows the values.

    Returns:
        Whether it is logarithmic.
    """
    value, low, high = ends_of(rows)
    if (value > 0).all():
        fit_log(ax, value, high, low[low > value.min() / 30], *more, axis=axis)
        return True
    zero_line(ax, axis)
    return False
