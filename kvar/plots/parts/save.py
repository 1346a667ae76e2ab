"""Writing a figure to disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from kvar.plots.parts.style import context

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["save"]


def save(fig: Figure | Axes, path: str | Path) -> list[Path]:
    """Write a figure as PNG (300 dots an inch) and as SVG, byte for byte the same for the same drawing.

    Args:
        fig: a figure, or axes of one.
        path: where to; a ``.png`` or ``.svg`` ending is dropped, both are written. Folders are made.

    Returns:
        The PNG's path and the SVG's.
    """
    path = Path(path)
    stem = path.with_suffix("") if path.suffix in (".png", ".svg") else path
    figure = cast("Figure", fig if hasattr(fig, "savefig") else fig.get_figure(root=True))
    stem.parent.mkdir(parents=True, exist_ok=True)
    written = []
    with context():
        for ending, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
            target = stem.parent / (stem.name + ending)
            figure.savefig(target, metadata=metadata)
            written.append(target)
    return written
