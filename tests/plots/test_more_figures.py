"""Figures of theory, error, layers, positions, gaps: by what is drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import kvar.plots as plots
from kvar.analysis.theory import TERMS
from kvar.plots.parts.draw import dodge
from tests.plots.drawn import by_gid, clashes, legend
from tests.plots.statistics_frames import SIZES, autocorrelation, breakdown, layers, positions, row

TABLES = {
    "variance_by_layer": layers,
    "variance_by_position": positions,
    "gap_autocorrelation": autocorrelation,
    "breakdown_of_variance": breakdown,
}


@pytest.mark.parametrize("width", [plots.COLUMN_WIDTH, plots.DOUBLE_WIDTH])
@pytest.mark.parametrize("name", TABLES)
def test_no_text_lies_on_text_or_off_the_page(name, width):
    ax = getattr(plots, name)(TABLES[name](), width=width)
    assert clashes(ax) == []
    assert ax.figure.get_figwidth() == width


@pytest.mark.parametrize("name", TABLES)
def test_axes_given_are_used_and_tables_left_alone(name):
    table = TABLES[name]()
    untouched = table.copy()
    ax = Figure().add_subplot()
    assert getattr(plots, name)(table, ax=ax) is ax
    pd.testing.assert_frame_equal(table, untouched)


@pytest.mark.parametrize("name", list(TABLES)[1:])
def test_bad_tables_are_clear_errors(name):
    draw, table = getattr(plots, name), TABLES[name]()
    with pytest.raises(ValueError, match="is empty"):
        draw(table.iloc[:0])
    with pytest.raises(ValueError, match="is empty"):
        draw(pd.DataFrame())
    for column in ("lag", "term", "share_low"):
        if column in table:
            with pytest.raises(ValueError, match=f"lacks the column {column}"):
                draw(table.drop(columns=column))
    with pytest.raises(ValueError, match="no student 'huge'; it has: "):
        draw(table, student="huge")


def test_theory_beside_measurement_draws_both_levels_but_not_k_1(frame):
    ax = plots.theory_beside_measurement(frame)
    assert ax.get_yscale() == "log"
    for i, student in enumerate(SIZES):
        for level in ("T0", "T1"):
            own = frame.query(f"student == @student and statistic == 'calibration_{level.lower()}' and step == 200")
            own = own[own["k"] != 1].sort_values("k")
            line = by_gid(ax, f"{level}:{student}")
            np.testing.assert_allclose(line.get_ydata(), own["value"])
            np.testing.assert_allclose(line.get_xdata(), np.arange(1, 5) + dodge(i, 3, 0.16) + 0.07 * (level == "T1"))
            bars = by_gid(ax, f"{level}:{student}:interval").get_segments()
            np.testing.assert_allclose([bar[:, 1] for bar in bars], own[["low", "high"]])
            assert (line.get_markerfacecolor() == "white") == (level == "T1")
    assert by_gid(ax, "perfect").get_ydata()[0] == 1.0
    assert legend(ax)[-2:] == ["T0", "T1"]
    assert legend(plots.theory_beside_measurement(frame[frame["statistic"] != "calibration_t1"]))[-1] == "T0"
    with pytest.raises(ValueError, match="of K = 1 only"):
        plots.theory_beside_measurement(frame[frame["k"] == 1])


def test_mse_rings_the_smallest_error_by_its_own_probability(frame):
    ax = plots.mse_against_k(frame)
    assert ax.get_yscale() == "log"
    assert [t.get_text() for t in ax.texts] == ["p=0.40", "p=0.97", "p=0.70"]
    assert [round(float(by_gid(ax, f"best:{s}").get_xdata()[0])) for s in SIZES] == [2, 1, 1]
    bare = plots.mse_against_k(frame[frame["statistic"] != "mse_best_probability"])
    own = frame.query("statistic == 'mse' and step == 200")
    assert [by_gid(bare, f"best:{s}").get_ydata()[0] for s in SIZES] == [
        pytest.approx(own[own["student"] == s]["value"].min()) for s in SIZES
    ]
    assert not bare.texts
    large, immediate = frame["student"] == "large", frame["kernel"] == "immediate"
    sure = frame.copy()
    sure.loc[large & (frame["statistic"] == "mse_best_probability"), "value"] = 0.0
    sure.loc[large & immediate, ["kernel", "k"]] = "kl immediate exact", float("nan")
    sure.loc[large & immediate & (frame["statistic"] == "mse_best_probability"), "value"] = 1.0
    rings = [line.get_gid() for line in plots.mse_against_k(sure).lines if str(line.get_gid()).startswith("best:")]
    assert rings == ["best:small", "best:medium"]  # of large the best is no K
    below = frame.assign(value=frame["value"].where(frame["statistic"] != "mse", -frame["value"]))
    assert plots.mse_against_k(below).get_yscale() == "linear"


def test_variance_by_layer_has_a_row_a_layer_and_the_whole_last():
    frame = layers()
    ax = plots.variance_by_layer(frame, student="small")
    names = ["embeddings", "encoder.block.0", "decoder.block.0", "all"]
    assert [t.get_text() for t in ax.get_yticklabels()] == names
    assert ax.yaxis_inverted() and ax.get_xscale() == "log"
    own = frame.query("student == 'small' and statistic == 'trace' and kernel == 'K=4'").set_index("group").loc[names]
    points = by_gid(ax, "measured:K=4")
    np.testing.assert_allclose(points.get_xdata(), own["value"])
    np.testing.assert_allclose(points.get_ydata(), np.arange(4))  # the middle of five kernels
    bars = [bar[:, 0] for bar in by_gid(ax, "measured:K=4:interval").get_segments()]
    np.testing.assert_allclose(bars, own[["low", "high"]])
    assert ax.get_legend().get_title().get_text() == "student small (22k)"
    largest = plots.variance_by_layer(frame, statistic="trace_ratio")
    assert largest.get_legend().get_title().get_text() == "student large (500k)"
    with pytest.raises(ValueError, match="no layers of student 'huge'; students with layers: small"):
        plots.variance_by_layer(frame, student="huge")
    with pytest.raises(ValueError, match=r"no 'trace' of a parameter group beside 'all'.*layer_groups"):
        plots.variance_by_layer(frame[frame["group"] == "all"])


def test_variance_by_position_draws_shares_or_the_parts_themselves():
    table = positions()
    ax = plots.variance_by_position(table, student="small")
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0-3", "4-9", "10-31"]
    line = by_gid(ax, "measured:K=1")
    np.testing.assert_allclose(line.get_ydata(), [0.6, 0.5, -0.1])
    bars = [bar[:, 1] for bar in by_gid(ax, "measured:K=1:interval").get_segments()]
    np.testing.assert_allclose(bars, [[0.5, 0.7], [0.4, 0.6], [-0.2, 0.0]])
    own = plots.variance_by_position(table, quantity="own")
    np.testing.assert_allclose(by_gid(own, "measured:K=1").get_ydata(), [1.2, 1.0, 0.2])  # of the last student
    assert own.get_yscale() == "log"
    with pytest.raises(ValueError, match="quantity must be 'share' or 'own'; got 'sum'"):
        plots.variance_by_position(table, quantity="sum")


def test_gap_autocorrelation_has_a_line_a_student_or_a_step():
    table = autocorrelation()
    ax = plots.gap_autocorrelation(table)
    assert legend(ax) == ["small (22k)", "large (500k)"]  # by size, not by the table's order
    np.testing.assert_allclose(by_gid(ax, "measured:large (500k)").get_ydata(), 0.4 ** np.arange(1, 6))
    bars = [bar[:, 1] for bar in by_gid(ax, "measured:large (500k):interval").get_segments()]
    np.testing.assert_allclose(bars[0], [0.35, 0.45])
    one = plots.gap_autocorrelation(table, student="small")
    assert legend(one) == ["step 0", "step 100"]
    assert legend(plots.gap_autocorrelation(table.drop(columns="parameters"))) == ["large", "small"]
    with pytest.raises(ValueError, match="lag 0 only"):
        plots.gap_autocorrelation(table[table["lag"] == 0])


def test_breakdown_stacks_up_to_the_measured_trace():
    table = breakdown()
    ax = plots.breakdown_of_variance(table)
    assert legend(ax) == list(TERMS)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "4", "∞"]
    total = np.zeros(3)
    for term in TERMS:
        bars = [bar for bar in ax.patches if bar.get_gid() == f"term:{term}"]
        share = table[table["term"] == term]["share"].to_numpy()
        np.testing.assert_allclose([bar.get_height() for bar in bars], share, atol=1e-12)
        ends = np.array([segment[:, 1] for segment in by_gid(ax, f"term:{term}:interval").get_segments()])
        np.testing.assert_allclose(ends[:, 1] - ends[:, 0], 0.1)
        np.testing.assert_allclose(ends.mean(axis=1), [bar.get_y() + bar.get_height() for bar in bars], atol=1e-12)
        total += share
        for bar, value in zip(bars, share, strict=True):
            assert (bar.get_y() >= -1e-12) if value >= 0 else (bar.get_y() <= 1e-12)
    np.testing.assert_allclose(total, 1.0)
    with pytest.raises(ValueError, match="lacks the term 'position' of some kernel"):
        plots.breakdown_of_variance(table[(table["term"] != "position") | (table["kernel"] != "K=4")])


def test_variance_by_layer_shows_a_layer_estimated_below_zero():
    rows = [row("small", "K=1", "bias_sq", v, v - 1, v + 1) | {"group": g} for g, v in (("a", -0.5), ("b", 2.0))]
    ax = plots.variance_by_layer(pd.DataFrame(rows), statistic="bias_sq")
    assert ax.get_xscale() == "linear"
    np.testing.assert_allclose(by_gid(ax, "measured:K=1").get_xdata(), [-0.5, 2.0])
