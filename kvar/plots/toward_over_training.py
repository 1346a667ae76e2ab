"""Figure: where a step leads, toward each target, as training goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvar.analysis.frames.statistics_frame import need_columns
from kvar.analysis.frames.summary import steps_of
from kvar.plots.parts.panels import new_panels, settle
from kvar.plots.parts.style import DOUBLE_WIDTH, context
from kvar.plots.variance_over_training import variance_over_training

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["toward_over_training"]


def toward_over_training(
    table: pd.DataFrame, *, estimators: Sequence[str] | None = None, width: float = DOUBLE_WIDTH
) -> Figure:
    """The efficiency of a step toward each target, with its sign, against the training step; a panel a target.

    Lines and bands as in :func:`kvar.plots.variance_over_training`; below zero a step leads away from the target.
    Targets whose own gradient is resolved at no step have no panel.

    Args:
        table: of :func:`kvar.analysis.toward_over_training`; columns student and parameters tell several students
            apart.
        estimators: names of those to draw.
        width: inches of the figure.

    Raises:
        ValueError: a column is missing, or no target is resolved at any step.
    """
    need_columns(table, ("step", "target", "estimator", "efficiency", "efficiency_low", "efficiency_high"), "table")
    frame = table.rename(
        columns={"estimator": "kernel", "efficiency": "value", "efficiency_low": "low", "efficiency_high": "high"}
    )
    frame = frame.assign(
        group="all", statistic="efficiency", k=[steps_of(str(name)) for name in frame["kernel"]], n=frame["units"]
    )
    for column, value in (("student", "student"), ("parameters", 0)):
        if column not in frame:
            frame[column] = value
    told = [str(t) for t in frame["target"].unique() if frame.loc[frame["target"] == t, "value"].notna().any()]
    if not told:
        raise ValueError("no target's gradient is resolved at any step: probe more prompts.")
    with context():
        figure, axes = new_panels(1, len(told), width=width, height=2.3, sharey=True)
        for ax, target in zip(axes[0], told, strict=True):
            rows = frame[frame["target"] == target]
            measured = set(rows.loc[rows["value"].notna(), "kernel"])
            drawn = None if estimators is None else [name for name in estimators if name in measured]
            variance_over_training(rows, statistic="efficiency", kernels=drawn, ax=ax)
            ax.set_ylabel("efficiency of a step" if ax is axes[0, 0] else "")
            ax.set_title(f"toward {target}", loc="left")
        settle(figure)
    return figure
