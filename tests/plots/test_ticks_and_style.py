"""Ticks, styles and labels."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kvar.plots.parts.labels import label_points
from kvar.plots.parts.style import series, student_series
from kvar.plots.parts.ticks import k_axis, k_positions, size_axis


def test_infinity_stands_last_and_one_step_on():
    assert k_positions([np.inf, 8, 1]) == {1: 0.0, 8: 3.0, np.inf: 4.0}
    assert k_positions([np.inf]) == {np.inf: 0.0}


def test_crowded_tick_labels_are_dropped_but_ends_stay():
    ax = Figure().add_subplot()
    k_axis(ax, [1, 15, 16, 17, 1024, np.inf])
    shown = [t.get_text() for t in ax.get_xticklabels()]
    assert shown == ["1", "15", "", "", "1024", "∞"]
    size_axis(ax, [1e5, 1.02e5, 1e6])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["100k", "", "1M"]


def test_styles_are_distinct_and_follow_the_whole_frame(frame):
    looks = series([str(i) for i in range(8)])
    assert len({look.colour for look in looks}) == len({look.marker for look in looks}) == 8
    assert len({str(look.line) for look in looks[:6]}) == 6
    styles = student_series(frame)
    assert [look.label for look in styles.values()] == ["small (22k)", "medium (90k)", "large (500k)"]
    assert [look.colour for look in styles.values()] == ["#0072B2", "#D55E00", "#009E73"]


def test_labels_of_coinciding_points_are_kept_apart():
    ax = Figure(figsize=(3.3, 2.5)).add_subplot()
    notes = label_points(ax, [(0.5, 0.5, f"K={i}", "black") for i in range(6)])
    ax.figure.draw_without_rendering()
    boxes = [note.get_window_extent() for note in notes]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])
    assert label_points(ax, []) == []


def test_importing_plots_and_report_costs_no_matplotlib_or_pandas():
    code = "import sys, kvar.plots, kvar.report; print([m for m in ('matplotlib', 'pandas') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[]"


def test_a_student_with_several_sizes_carries_none():
    frame = pd.DataFrame({"student": ["tiny", "tiny", "big"], "parameters": [52_000, 239_000, 972_000]})
    assert [style.label for style in student_series(frame).values()] == ["tiny", "big (972k)"]
