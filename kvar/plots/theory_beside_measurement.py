"""Figure: how far theory's predictions of the variance are from what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvar.analysis.frames.statistics_frame import find, select
from kvar.plots.parts.draw import by_student, draw_line, log_if_positive
from kvar.plots.parts.style import COLUMN_WIDTH, PREDICTED, context, legend_above, new_axes, student_series
from kvar.plots.parts.ticks import k_axis

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["theory_beside_measurement"]


def theory_beside_measurement(
    frame: pd.DataFrame,
    *,
    group: str = "all",
    step: int | str = "last",
    width: float = COLUMN_WIDTH,
    ax: Axes | None = None,
) -> Axes:
    """Predicted over measured ratio of tr Cov(g^K) to K = 1, theory.md eqs. (15) to (17): a line a student and level.

    Filled markers on a solid line are T0, hollow ones on a dashed line, a little to the right, T1; bars are intervals
    of the quotient. The grey line at one is a perfect prediction; K = 1 stands there by definition and is not drawn.

    Args:
        frame: a statistics frame with ``calibration_t0``, and ``calibration_t1`` where it is to be shown.
        group: parameter group.
        step: training step, or "last".
        width: inches of a fresh figure.
        ax: axes to draw on instead of a fresh figure.

    Raises:
        ValueError: the frame is empty or lacks a column or the statistic; the message names it.
    """
    import pandas as pd
    from matplotlib.lines import Line2D

    measured = select(frame, "calibration_t0", group=group, step=step)
    levels = {"T0": measured, "T1": find(frame, "calibration_t1", group=group, step=step)}
    levels = {level: rows[rows["k"] != 1.0] for level, rows in levels.items() if (rows["k"] != 1.0).any()}
    if not levels:
        raise ValueError("the statistics frame has 'calibration_t0' of K = 1 only, where it is one by definition.")
    both = pd.concat(levels.values())
    looks = student_series(frame, both)
    with context():
        ax = new_axes(ax, width=width)
        places = k_axis(ax, both["k"])
        handles = [look.handle() for look in looks.values()]
        for level, level_rows in levels.items():
            style: dict[str, Any] = PREDICTED if level == "T1" else {"linestyle": "-"}
            for name, look, rows, x in by_student(looks, level_rows, places, 0.16):
                draw_line(ax, x + 0.07 * (level == "T1"), rows, look, gid=f"{level}:{name}").set(**style)
            handles.append(Line2D([], [], color="0.3", marker="o", label=level, **style))
        ax.axhline(1.0, color="0.6", linewidth=0.8, zorder=0, gid="perfect")
        if log_if_positive(ax, both):
            low, high = ax.get_ylim()
            ax.set_ylim(min(low, 0.93), max(high, 1.07))
        ax.set_ylabel("predicted / measured variance ratio")
        legend_above(ax, handles)
    return ax
