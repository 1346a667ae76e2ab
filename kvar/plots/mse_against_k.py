"""Figure: which K errs least, bias and noise together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvar.plots.parts.ringed import ringed_against_k
from kvar.plots.parts.style import COLUMN_WIDTH

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["mse_against_k"]


def mse_against_k(
    frame: pd.DataFrame,
    *,
    group: str = "all",
    step: int | str = "last",
    width: float = COLUMN_WIDTH,
    ax: Axes | None = None,
) -> Axes:
    """Mean squared error of a step's gradient, theory.md eq. (10), against K: what plain SGD at a fixed rate feels.

    One line a student, intervals, the most likely best K ringed, with its probability where ``mse_best_probability``
    was measured. The error is not free of scale; hold :func:`kvar.plots.efficiency_against_k` beside it.

    Args:
        frame: a statistics frame with ``mse``.
        group: parameter group.
        step: training step, or "last".
        width: inches of a fresh figure.
        ax: axes to draw on instead of a fresh figure.

    Returns:
        The axes; logarithmic unless an error was estimated below zero.

    Raises:
        ValueError: the frame is empty or lacks a column or the statistic; the message names it.
    """
    return ringed_against_k(
        frame, "mse", "mse_best_probability", "mean squared error of a step",
        smallest=True, log=True, group=group, step=step, width=width, ax=ax,
    )  # fmt: skip
