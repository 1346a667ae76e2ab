"""The table for the terminal."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from kvar.intervals import Interval
from kvar.report import render_table
from kvar.report.tables.by_run import verdict_table
from kvar.report.tables.terminal import TABLE_WIDTH
from tests.plots.statistics_frames import row


def test_lines_students_and_which_may_be_best(frame):
    lines = render_table(frame).splitlines()
    assert max(map(len, lines)) <= TABLE_WIDTH
    assert lines[2].split() == ["kernel", "variance", "/", "K=1", "SNR", "bias^2", "efficiency", "P(best)"]
    assert [line for line in lines if ", n = " in line] == [
        "small (22k), n = 256; best is not resolved: K=4 (0.40), K=8 (0.30), K=2 (0.20) and K=1 (0.05) cannot be told",
        "medium (90k), n = 256; best K=8, with probability 0.97",
        "large (500k), n = 256; best is not resolved: K=8 (0.70), immediate (0.20) and K=4 (0.09) cannot be told apart",
    ]
    assert [line.split()[0] for line in lines[4:9]] == ["K=1*", "K=2*", "K=4*", "K=8*", "immediate"]
    assert "0.065 [0.041, 0.089]" in lines[6]
    assert lines[6].endswith("0.40")
    assert "steps" not in lines[-1] and "step of 48;" in render_table(frame, batch=48).replace("\n", " ")


def test_a_baseline_heads_the_block_where_it_is_the_best_and_no_k_beside_it(frame):
    given = {"snr": 1.0, "efficiency": 0.5, "best_probability": 0.96}
    rival = [row("small", "K=1 - mean", name, value, value, value, step=200) for name, value in given.items()]
    others = frame[(frame["student"] != "small") | (frame["statistic"] != "best_probability")]
    lines = render_table(pd.concat([others, pd.DataFrame(rival)])).splitlines()
    assert "small (22k), n = 256; best K=1 - mean, with probability 0.96" in lines
    assert next(line.split("  ")[0] for line in lines if "*  " in line) == "K=1 - mean*"


def test_where_no_direction_is_known_no_best_is_named(frame):
    frame.loc[frame["statistic"] == "best_probability", "value"] = math.nan
    frame.loc[frame["statistic"] == "efficiency", "value"] = math.nan
    assert verdict_table(frame)["points best"].tolist() == ["not resolved"] * 3
    text = render_table(frame)
    assert text.count("best is not resolved: the true gradient's direction cannot be dis") == 3 and "*  " not in text


@pytest.mark.parametrize("seed", range(5))
def test_width_holds_for_any_numbers_and_long_names(seed):
    draw = np.random.default_rng(seed)
    rows = []
    for kernel in ("K=1", "a kernel with a very long name indeed (0.95)"):
        for statistic in ("trace_ratio", "snr", "bias_sq", "efficiency"):
            reach = 14 if statistic == "bias_sq" else 1  # the others have no unit
            value, half = draw.normal() * 10.0 ** draw.integers(-reach, reach), 10.0 ** draw.integers(-reach, reach)
            rows.append(row("s" * 150, kernel, statistic, value, value - half, value + half))
    assert max(map(len, render_table(pd.DataFrame(rows)).splitlines())) <= TABLE_WIDTH + 10


def test_a_missing_number_is_a_dash_an_empty_column_left_out_and_an_empty_table_an_error(frame):
    text = render_table(frame[frame["statistic"] == "snr"])
    assert text.splitlines()[1].split() == ["kernel", "SNR"]
    assert text.splitlines()[3].split() == ["K=1", "1.1", "[0.7,", "1.5]"]
    assert "Efficiency:" not in text and "P(best)" not in text
    one = frame["kernel"] == "K=1"
    text = render_table(frame[(frame["statistic"] == "snr") | (one & (frame["statistic"] == "bias_sq"))])
    assert text.splitlines()[1].split() == ["kernel", "SNR", "bias^2"]
    assert [line.split()[-1] for line in text.splitlines() if line.startswith("K=2 ")] == ["-"] * 3
    with pytest.raises(ValueError, match="none of trace_ratio, snr, bias_sq, efficiency in group 'all'; it has: mse"):
        render_table(frame[frame["statistic"] == "mse"])
    with pytest.raises(ValueError, match="is empty"):
        render_table(frame.iloc[:0])


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (Interval(0.0, 0.0, 0.0), "0.0 [0.0, 0.0]"),
        (Interval(-0.0, -0.0, 0.0), "0.0 [0.0, 0.0]"),
        (Interval(-1.3e-4, -2.5e-4, -1e-5), "-1.3e-4 [-2.5e-4, -1e-5]"),
        (Interval(123456.0, 100000.0, 150000.0), "1.2e5 [1e5, 1.5e5]"),
        (Interval(12.0, 9.0, 15.0), "12 [9, 15]"),
        (Interval(0.5), "0.50"),
        (Interval(-0.02, -11.34, 9.38), "-0.02 [-11, 9]"),
        (Interval(2200.0, 35.0, 1.4e11), "2200 [35, 1.4e11]"),
        (Interval(math.inf, 1.0, math.inf), "inf"),
    ],
)
def test_compact(cell, text):
    assert cell.compact() == text


def test_an_efficiency_of_which_nothing_is_known_is_a_dash(frame):
    told, unknown = (row("small", "K=16", "efficiency", 0.1, low, 1.0, step=200) for low in (-0.9, -1.0))
    for extra, cell in ((told, "0.1"), (unknown, "-")):
        text = render_table(pd.concat([frame, pd.DataFrame([extra])], ignore_index=True))
        line = next(line for line in text.splitlines() if line.startswith("K=16"))
        assert line.split()[4].startswith(cell)
