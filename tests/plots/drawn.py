"""What is on a finished figure: artists by name, and whether its texts are clear of each other."""

from __future__ import annotations

import itertools


def by_gid(ax, gid):
    (artist,) = [child for child in ax.get_children() if child.get_gid() == gid]
    return artist


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def clashes(ax):
    """Texts that lie on each other or off the page."""
    ax.figure.draw_without_rendering()
    ticks = [*ax.get_xticklabels(), *ax.get_yticklabels()]
    texts = [*ticks, ax.xaxis.label, ax.yaxis.label, *ax.texts, *ax.get_legend().get_texts()]
    texts.append(ax.get_legend().get_title())
    low, high = ax.get_window_extent().get_points()
    shown = []
    for text in texts:
        box = text.get_window_extent()
        x, y = box.x0 + box.width / 2, box.y0 + box.height / 2
        off = text in ticks and not (low[0] - 1 <= x <= high[0] + 1 or low[1] - 1 <= y <= high[1] + 1)
        if text.get_visible() and text.get_text() and not off:
            shown.append((text.get_text(), box))
    page = ax.figure.bbox
    bad = [text for text, box in shown if box.x0 < page.x0 - 1 or box.x1 > page.x1 + 1 or box.y1 > page.y1 + 1]
    bad += [text for text, box in shown if box.y0 < page.y0 - 1]
    for (one, a), (other, b) in itertools.combinations(shown, 2):
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1.5 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1.5:
            bad.append(f"{one} on {other}")
    return bad
