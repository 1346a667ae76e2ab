"""Figure: which K points best."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvar.plots.parts.ringed import ringed_against_k
from kvar.plots.parts.style import COLUMN_WIDTH

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["efficiency_against_k"]


def efficiency_against_k(
    frame: pd.DataFrame,
    *,
    group: str = "all",
    step: int | str = "last",
    width: float = COLUMN_WIDTH,
    ax: Axes | None = None,
) -> Axes:
    """Efficiency eta, theory.md eq. (11'), against K: one line a student, intervals, the most likely best K ringed.

    The text at a ring is the probability that this K is the best, where ``best_probability`` was measured;
    an estimator with a baseline that is likelier than any K is named there too.

    Args:
        frame: a statistics frame with ``efficiency``.
        group: parameter group.
        step: training step, or "last".
        width: inches of a fresh figure.
        ax: axes to draw on instead of a fresh figure.

    Returns:
        The axes.

    Raises:
        ValueError: the frame is empty or lacks a column or the statistic; the message names it.
    """
    return ringed_against_k(
        frame, "efficiency", "best_probability", "efficiency η",
        smallest=False, log=False, group=group, step=step, width=width, ax=ax,
    )  # fmt: skip
