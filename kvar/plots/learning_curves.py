"""Figure: what the logs of training show, a line a method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvar.analysis.frames.statistics_frame import need_columns
from kvar.plots.parts.panels import student_panels
from kvar.plots.parts.style import DOUBLE_WIDTH, context, series

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["QUANTITIES", "learning_curves"]

QUANTITIES = {
    "loss": "training loss",
    "total_gap": "total gap, -J + const.",
    "response_length": "length, tokens",
}
"""Known quantities and their axis labels; by theory.md (6) J = E[V_1 - sum_t gap_t], and V_1 is the prompt's alone."""


def learning_curves(
    curves: pd.DataFrame,
    quantity: str = "total_gap",
    *,
    methods: Sequence[str] | None = None,
    width: float = DOUBLE_WIDTH,
) -> Figure:
    """A quantity of the training logs against the step: a row of panels a task, a panel a student, a line a method.

    Lines are means over seeds at each logged step, bands the range of the seeds (not an interval). A log is the mean
    over the steps since the one before, so single points are noisy.

    Args:
        curves: task, student, parameters, method, seed, step, quantity, value.
        quantity: which one; known ones have a label of their own (:data:`QUANTITIES`).
        methods: which, in the order of the legend; by default all that have the quantity.
        width: inches.

    Raises:
        ValueError: a column is missing, or no method has the quantity.
    """
    from matplotlib.ticker import MaxNLocator

    columns = ("task", "student", "parameters", "method", "seed", "step", "quantity", "value")
    need_columns(curves, columns, "frame of learning curves")
    rows = curves[curves["quantity"] == quantity].dropna(subset="value")
    if methods is not None:
        rows = rows[rows["method"].isin(methods)]
    if not len(rows):
        logged = ", ".join(sorted(map(str, curves["quantity"].unique())))
        raise ValueError(f"no method has {quantity!r} in its logs; there are {logged}.")
    names = [str(m) for m in (methods or rows["method"].unique()) if m in set(rows["method"])]

    def draw(ax: Axes, rows: pd.DataFrame, place: str) -> None:
        for look in series(names):
            line = rows[rows["method"] == look.label].groupby("step")["value"].agg(["mean", "min", "max"])
            if len(line):
                gid = f"{place}:{look.label}"
                ax.plot(line.index, line["mean"], color=look.colour, linestyle=look.line, linewidth=1.0,
                        label=look.label, gid=gid, zorder=3)  # fmt: skip
                ax.fill_between(line.index, line["min"], line["max"], color=look.colour, alpha=0.09, linewidth=0,
                                zorder=1).set_gid(f"{gid}:range")  # fmt: skip
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(5))

    labels = ("training step", QUANTITIES.get(quantity, quantity))
    with context():
        return student_panels(rows, draw, labels=labels, width=width, height=1.55, sharex=True)
