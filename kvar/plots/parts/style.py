"""The look shared by every figure: palette, markers, sizes. Global rcParams are never changed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from kvar.analysis.frames.statistics_frame import students
from kvar.plots.parts.ticks import compact_count

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

__all__ = [
    "COLUMN_WIDTH", "DOUBLE_WIDTH", "LINES", "MARKERS", "OKABE_ITO", "PREDICTED", "RC", "Series", "context",
    "legend_above", "names_count", "new_axes", "series", "student_series",
]  # fmt: skip

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""Okabe and Ito's palette, safe for the common kinds of colour-blindness, in order of contrast on white."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES: tuple[Any, ...] = ("-", (0, (6, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (3, 1)), (0, (8, 3)))

PREDICTED: dict[str, Any] = {
    "linestyle": (0, (3, 2)), "linewidth": 0.8, "markersize": 3.6, "markerfacecolor": "white", "markeredgewidth": 0.8,
}  # fmt: skip
"""Small hollow markers on a pale dashed line: what theory predicts, beside what was measured."""

COLUMN_WIDTH = 3.3
"""Inches: one column of a two-column page."""
DOUBLE_WIDTH = 6.8
"""Inches: both columns."""

RC: dict[str, Any] = {
    "font.size": 8.0,
    "axes.labelsize": 8.0,
    "axes.titlesize": 8.0,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "legend.fontsize": 7.0,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.5,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "legend.frameon": False,
    "savefig.dpi": 300,
    "figure.dpi": 150,
    "svg.hashsalt": "kvar",
}


@dataclass(frozen=True)
class Series:
    """How one line is drawn: its name in the legend, colour, marker and line style."""

    label: str
    colour: str
    marker: str
    line: Any

    def handle(self) -> Line2D:
        """Its marker and label for a legend, without the line."""
        from matplotlib.lines import Line2D

        return Line2D([], [], color=self.colour, marker=self.marker, linestyle="none", label=self.label)


@contextmanager
def context() -> Iterator[None]:
    """Matplotlib settings of kvar's figures, for the length of a ``with`` block."""
    import matplotlib

    with matplotlib.rc_context(cast(Any, RC)):
        yield


def new_axes(ax: Axes | None = None, *, width: float = COLUMN_WIDTH, ratio: float = 0.82) -> Axes:
    """``ax`` itself, or the axes of a fresh figure that belongs to no window system.

    Args:
        ax: axes to draw on.
        width: inches, of a fresh figure.
        ratio: height over width at column width; wider figures are flatter.
    """
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    height = ratio * COLUMN_WIDTH * (width / COLUMN_WIDTH) ** 0.45
    return Figure(figsize=(width, height), layout="constrained").add_subplot()


def series(labels: Sequence[str]) -> list[Series]:
    """One distinct style a label, in order; colours, markers and lines repeat only past eight, eight and six."""
    return [
        Series(label, OKABE_ITO[i % len(OKABE_ITO)], MARKERS[i % len(MARKERS)], LINES[i % len(LINES)])
        for i, label in enumerate(labels)
    ]


def names_count(name: str, count: int) -> bool:
    """Whether a student's name says its parameter count already, to a tenth.

    >>> names_count("t5-0.3M", 300_000), names_count("22k", 22_400), names_count("t5-2M", 300_000)
    (True, True, False)
    """
    units = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9}
    counts = re.findall(r"(\d+(?:\.\d+)?)([kmb]?)(?![a-z])", name.lower())
    return any(abs(float(digits) * units[unit] - count) <= 0.1 * count for digits, unit in counts)


def student_series(frame: pd.DataFrame, drawn: pd.DataFrame | None = None) -> dict[str, Series]:
    """One style a student, smallest first; the whole frame decides, so that figures of one frame agree.

    The label carries the parameter count, unless the name already does or it has several, as over tasks whose
    vocabularies differ. With ``drawn``, some rows of the frame, only the students in these have an entry.
    """
    names = students(frame)
    counts = {str(name): rows.unique() for name, rows in frame.groupby("student")["parameters"]}
    labels = [
        name if len(counts[name]) > 1 or names_count(name, int(counts[name][0]))
        else f"{name} ({compact_count(counts[name][0])})"
        for name in names
    ]  # fmt: skip
    shown = set(names if drawn is None else drawn["student"])
    return {name: look for name, look in zip(names, series(labels), strict=True) if name in shown}


def legend_above(ax: Axes, handles: Sequence[Any] | None = None, title: str | None = None, short: bool = False) -> None:
    """A legend over the axes, where it can hide nothing, in as many columns as fit.

    Args:
        ax: axes.
        handles: what to show; by default all that has a label.
        title: over the legend, on the left.
        short: short handles, for patches and lone markers.
    """
    chosen = list(handles) if handles is not None else ax.get_legend_handles_labels()[0]
    if not chosen:
        return
    figure = ax.get_figure(root=True)
    width = figure.get_figwidth() * ax.get_position().width if figure is not None else COLUMN_WIDTH
    longest = max(len(str(handle.get_label())) for handle in chosen)
    columns = max(1, min(len(chosen), int(width * 72 // ((3.4 if short else 3.7) * longest + (22 if short else 30)))))
    legend = ax.legend(
        handles=chosen, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=columns, borderaxespad=0.2,
        handlelength=1.4 if short else 2.4, columnspacing=1.0, handletextpad=0.5, labelspacing=0.3,
        title=title, title_fontsize=7.0, alignment="left",
    )  # fmt: skip
    legend.set_gid("legend")
