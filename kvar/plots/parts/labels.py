"""Labels beside points, put where they cover neither points, lines nor each other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

__all__ = ["label_points"]

_SIZE = 6.5
"""Points, of the font."""
_DIRECTIONS = ((0, 1), (1, 1), (-1, 1), (1, 0), (-1, 0), (0, -1), (1, -1), (-1, -1))


def _along(points: np.ndarray, spacing: float = 2.0) -> np.ndarray:
    """Points at most ``spacing`` apart along the segments that join consecutive rows of ``points``."""
    points = points[np.isfinite(points).all(1)]
    if len(points) < 2:
        return points
    steps = [max(2, min(500, int(np.hypot(*(b - a)) / spacing) + 2)) for a, b in itertools.pairwise(points)]
    segments = zip(itertools.pairwise(points), steps, strict=True)
    return np.concatenate([a + np.linspace(0, 1, n)[:, None] * (b - a) for (a, b), n in segments])


def label_points(
    ax: Axes,
    points: Sequence[tuple[float, float, str, str]],
    paths: Sequence[np.ndarray] = (),
    gap: float = 3.5,
) -> list[Annotation]:
    """Write a text beside each point.

    Args:
        ax: axes whose scales and limits are final.
        points: (x, y, text, colour) each, in data units.
        paths: (n, 2) polylines in data units that labels should keep off, intervals included.
        gap: least distance from the point, in points.

    Returns:
        The annotations, in order.
    """
    from matplotlib.patheffects import withStroke

    figure = ax.get_figure(root=True)
    if figure is None or not points:
        return []
    figure.draw_without_rendering()  # positions are known from here on
    to_points = 72.0 / figure.dpi
    with np.errstate(invalid="ignore", divide="ignore"):
        spots = ax.transData.transform([(x, y) for x, y, _, _ in points]) * to_points
        lines = [_along(np.asarray(ax.transData.transform(path)) * to_points) for path in paths if len(path)]
    frame = ax.get_window_extent()
    inside = np.array([[frame.x0, frame.y0], [frame.x1, frame.y1]]) * to_points
    obstacles = np.concatenate([spots, spots, spots, *lines])
    obstacles = obstacles[np.isfinite(obstacles).all(1)]
    taken: list[tuple[np.ndarray, np.ndarray]] = []
    drawn = []
    halo = [withStroke(linewidth=1.5, foreground="white", alpha=0.85)]
    for (x, y, text, colour), spot in zip(points, spots, strict=True):
        half = np.array([len(text) * _SIZE * 0.35 + 0.5, _SIZE * 0.5])
        best: tuple[float, np.ndarray] | None = None
        for ring, (dx, dy) in itertools.product((1, 2, 3), _DIRECTIONS):
            reach = gap + 3.5 * (ring - 1)
            offset = np.array([dx * (reach + half[0]), dy * (reach + half[1])])
            low, high = spot + offset - half, spot + offset + half
            hits = ((obstacles > low - 0.8) & (obstacles < high + 0.8)).all(1).sum()
            clashes = sum(bool((low < b).all() and (a < high).all()) for a, b in taken)
            outside = bool((low < inside[0]).any() or (high > inside[1]).any())
            cost = float(hits) + 40 * clashes + 40 * outside + 2.5 * ring
            if best is None or cost < best[0]:
                best = (cost, offset)
        assert best is not None
        offset = best[1]
        taken.append((spot + offset - half, spot + offset + half))
        drawn.append(
            ax.annotate(
                text, (x, y), xytext=tuple(offset), textcoords="offset points", ha="center", va="center",
                fontsize=_SIZE, color=colour, zorder=5, path_effects=halo,
            )
        )  # fmt: skip
    return drawn
