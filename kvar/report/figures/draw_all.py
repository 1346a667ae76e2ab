"""Draw the figures of a report, and collect the reasons for those that cannot be drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_all"]


def draw_all(
    wanted: Mapping[str, tuple[str, Callable[[], Axes | Figure]]], folder: Path
) -> tuple[dict[str, Path], dict[str, str]]:
    """Draw and save every figure, as PNG and SVG.

    Args:
        wanted: title -> (file name without its ending, drawing function, which raises ValueError where data are
            missing).
        folder: created if missing.

    Returns:
        Title -> PNG; title -> reason for figures that cannot be drawn.
    """
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure

    from kvar import plots

    folder.mkdir(parents=True, exist_ok=True)
    drawn: dict[str, Path] = {}
    missing: dict[str, str] = {}
    for title, (name, draw) in wanted.items():
        try:
            picture = draw()
        except ValueError as error:
            missing[title] = str(error)
            continue
        drawn[title] = plots.save(picture, folder / name)[0]
        figure = picture if isinstance(picture, Figure) else picture.get_figure(root=True)
        if figure is not None:
            plt.close(figure)
    return drawn, missing
