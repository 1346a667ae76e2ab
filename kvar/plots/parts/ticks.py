"""Positions and labels on the K axis (log2, infinity last) and on the parameter-count axis."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["compact_count", "k_axis", "k_label", "k_positions", "size_axis"]

_CLOSEST = 0.07
"""Two tick labels nearer than this share of the axis would touch at column width; the later one is dropped."""


def k_label(k: float) -> str:
    """Tick label of a K.

    >>> [k_label(k) for k in (1.0, 16.0, float("inf"))]
    ['1', '16', '∞']
    """
    return "∞" if math.isinf(k) else f"{k:g}"


def compact_count(count: float) -> str:
    """A parameter count in two or three digits.

    >>> [compact_count(n) for n in (950, 22_000, 261_500, 999_700, 1_250_000, 9_400_000, 60_000_000, 2e9)]
    ['950', '22k', '262k', '1M', '1.2M', '9.4M', '60M', '2B']
    """
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size * 0.9995:
            scaled = count / size
            return f"{scaled:.1f}".removesuffix(".0") + unit if scaled < 9.95 else f"{scaled:.0f}{unit}"
    return f"{count:.0f}"


def k_positions(ks: Iterable[float]) -> dict[float, float]:
    """Where each K stands: log2 K, and infinity one step right of the largest finite K.

    >>> k_positions([1, 2, 8, float("inf")])
    {1: 0.0, 2: 1.0, 8: 3.0, inf: 4.0}
    """
    ordered = sorted(set(ks))
    finite = {k: math.log2(k) for k in ordered if math.isfinite(k)}
    last = max(finite.values(), default=-1.0)
    return {k: finite.get(k, last + 1.0) for k in ordered}


def _spaced(positions: list[float]) -> list[bool]:
    """Which ticks keep their label: the last always, the others where they do not crowd the one before."""
    span = (positions[-1] - positions[0]) or 1.0
    kept, previous = [], -math.inf
    for i, position in enumerate(positions):
        crowds_last = i < len(positions) - 1 and positions[-1] - position < _CLOSEST * span
        keep = position - previous >= _CLOSEST * span and not crowds_last
        kept.append(keep)
        previous = position if keep else previous
    return kept


def k_axis(ax: Axes, ks: Iterable[float], label: str = "K") -> dict[float, float]:
    """Give ``ax`` a K axis and return the positions of :func:`k_positions`.

    A dotted line parts infinity from the finite K, since the step between them has no length.
    """
    places = k_positions(ks)
    ordered = list(places.values())
    keep = _spaced(ordered)
    ax.set_xticks(ordered, [k_label(k) if shown else "" for k, shown in zip(places, keep, strict=True)])
    ax.set_xticks([], minor=True)
    ax.set_xlim(ordered[0] - 0.4, ordered[-1] + 0.4)
    ax.set_xlabel(label)
    if math.isinf(max(places)) and len(places) > 1:
        ax.axvline(ordered[-1] - 0.5, color="0.8", linestyle=":", linewidth=0.8, zorder=0, gid="infinity")
    return places


def size_axis(ax: Axes, counts: Iterable[float], label: str = "student parameters") -> None:
    """Give ``ax`` a logarithmic axis with one tick a student size."""
    ordered = sorted(set(float(c) for c in counts))
    ax.set_xscale("log")
    keep = _spaced([math.log(c) for c in ordered])
    ax.set_xticks(ordered, [compact_count(c) if shown else "" for c, shown in zip(ordered, keep, strict=True)])
    ax.set_xticks([], minor=True)
    ax.set_xlim(ordered[0] / 1.6, ordered[-1] * 1.6)
    ax.set_xlabel(label)
