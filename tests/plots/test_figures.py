"""Figures, by what is drawn: coordinates, labels, legend entries; never by pixels."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import kvar.plots as plots
from kvar.analysis import across_seeds, power_law
from kvar.intervals.jackknife import signed_root
from kvar.plots.parts.draw import dodge
from tests.plots.drawn import by_gid, clashes, legend
from tests.plots.statistics_frames import KS, SIZES, row, study

FIGURES = {
    "variance_against_k": "trace_ratio",
    "bias_against_variance": "bias_sq",
    "efficiency_against_k": "efficiency",
    "mse_against_k": "mse",
    "theory_beside_measurement": "calibration_t0",
    "snr_against_k": "snr",
    "variance_over_training": "trace",
    "variance_against_size": "trace",
    "within_between_shares": "within_share",
}
LABELS = ["small (22k)", "medium (90k)", "large (500k)"]


def values(frame, student, statistic, column="value", step=200):
    chosen = frame[(frame["student"] == student) & (frame["statistic"] == statistic) & (frame["step"] == step)]
    return chosen.sort_values("k")[column].to_numpy()


def segments(collection):
    return np.array([segment[:, 1] for segment in collection.get_segments()])


@pytest.mark.parametrize(("name", "statistic"), FIGURES.items())
def test_missing_statistic_and_empty_frame_are_clear_errors(frame, name, statistic):
    draw = getattr(plots, name)
    with pytest.raises(ValueError, match=f"no '{statistic}'"):
        draw(frame[frame["statistic"] != statistic])
    with pytest.raises(ValueError, match="is empty"):
        draw(frame.iloc[:0])


@pytest.mark.parametrize("name", FIGURES)
def test_global_settings_and_given_axes_are_respected(frame, name):
    before = dict(matplotlib.rcParams)
    ax = Figure().add_subplot()
    untouched = frame.copy()
    assert getattr(plots, name)(frame, ax=ax) is ax
    assert dict(matplotlib.rcParams) == before
    pd.testing.assert_frame_equal(frame, untouched)


@pytest.mark.parametrize("width", [plots.COLUMN_WIDTH, plots.DOUBLE_WIDTH])
@pytest.mark.parametrize("name", FIGURES)
def test_no_text_lies_on_text_or_off_the_page(frame, name, width):
    ax = getattr(plots, name)(frame, width=width)
    assert clashes(ax) == []
    assert ax.figure.get_figwidth() == width


def test_variance_against_k_draws_measurement_prediction_and_scale(frame):
    ax = plots.variance_against_k(frame)
    assert ax.get_yscale() == "log"
    for i, student in enumerate(SIZES):
        line = by_gid(ax, f"measured:{student}")
        np.testing.assert_allclose(line.get_ydata(), values(frame, student, "trace_ratio"))
        np.testing.assert_allclose(line.get_xdata(), np.arange(5) + dodge(i, 3, 0.11))
        bars = segments(by_gid(ax, f"measured:{student}:interval"))
        np.testing.assert_allclose(bars[:, 0], values(frame, student, "trace_ratio", "low"))
        np.testing.assert_allclose(bars[:, 1], values(frame, student, "trace_ratio", "high"))
        theory = by_gid(ax, f"T0:{student}")
        np.testing.assert_allclose(theory.get_ydata(), values(frame, student, "trace_ratio_t0"))
        assert theory.get_markerfacecolor() == "white"
        assert theory.get_color() == line.get_color()
        assert theory.get_linestyle() == "--"
    np.testing.assert_allclose(by_gid(ax, "pure scale").get_ydata(), [1, 1 / 4, 1 / 16, 1 / 64])
    assert legend(ax) == [*LABELS, "T0 (independent gaps; a reference, not a fit)", "pure scale, 1/K²"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "2", "4", "8", "∞"]


def test_prediction_may_be_left_out_but_not_be_missing(frame):
    bare = frame[frame["statistic"] != "trace_ratio_t0"]
    with pytest.raises(ValueError, match="trace_ratio_t0"):
        plots.variance_against_k(bare)
    assert "T0" not in " ".join(legend(plots.variance_against_k(bare, prediction=False)))


def test_students_differ_in_colour_marker_and_line(frame):
    ax = plots.snr_against_k(frame)
    lines = [by_gid(ax, f"measured:{student}") for student in SIZES]
    assert len({line.get_color() for line in lines}) == 3
    assert len({line.get_marker() for line in lines}) == 3
    assert len({str(line._dash_pattern) for line in lines}) == 3


def test_an_unknown_interval_is_not_drawn(frame):
    hidden = frame.assign(low=frame["low"].where(frame["kernel"] != "K=4"))
    ax = plots.variance_against_k(hidden)
    assert len(by_gid(ax, "measured:small:interval").get_segments()) == 4


def test_bias_against_variance_keeps_the_sign_and_labels_k(frame):
    ax = plots.bias_against_variance(frame)
    for student in SIZES:
        path = by_gid(ax, f"path:{student}")
        np.testing.assert_allclose(path.get_xdata(), values(frame, student, "trace"))
        np.testing.assert_allclose(path.get_ydata(), signed_root(values(frame, student, "bias_sq")))
        assert path.get_ydata()[-1] < 0
        across = by_gid(ax, f"{student}:x-interval").get_segments()
        np.testing.assert_allclose(
            [s[:, 0] for s in across][1], [values(frame, student, "trace", c)[1] for c in ("low", "high")]
        )
        up = segments(by_gid(ax, f"{student}:y-interval"))
        np.testing.assert_allclose(up[:, 1], signed_root(values(frame, student, "bias_sq", "high")))
    assert [t.get_text() for t in ax.texts] == ["K=1", "2", "4", "8", "∞"] * 3
    assert legend(ax) == LABELS


def test_bias_against_variance_shows_other_kernels_on_request(frame):
    extra = [
        row("small", "geometric(0.9)", s, v, v / 2, v * 2, step=200) for s, v in (("trace", 0.1), ("bias_sq", 1e-4))
    ]
    more = pd.concat([frame, pd.DataFrame(extra)])
    ax = plots.bias_against_variance(more, others=True)
    np.testing.assert_allclose(by_gid(ax, "others:small").get_xydata(), [[0.1, 0.01]])
    assert "geometric(0.9)" in [t.get_text() for t in ax.texts]
    assert "geometric(0.9)" not in [t.get_text() for t in plots.bias_against_variance(more).texts]


def test_bias_and_trace_must_share_a_kernel(frame):
    apart = frame[
        ((frame["statistic"] == "trace") & (frame["k"] == 1)) | ((frame["statistic"] == "bias_sq") & (frame["k"] == 2))
    ]
    with pytest.raises(ValueError, match="both 'trace' and 'bias_sq'"):
        plots.bias_against_variance(apart)


def test_efficiency_rings_the_best_k_with_its_probability(frame):
    ax = plots.efficiency_against_k(frame)
    assert [round(by_gid(ax, f"best:{s}").get_ydata()[0], 3) for s in SIZES] == [0.065, 0.231, 0.149]
    assert [round(float(by_gid(ax, f"best:{s}").get_xdata()[0])) for s in SIZES] == [2, 3, 3]
    assert [t.get_text() for t in ax.texts] == ["p=0.40", "p=0.97", "p=0.70"]
    assert legend(ax) == [*LABELS, "best K"]
    chances = {"small": 0.5, "large": 0.1}
    rivals = [row(name, "K=1 - mean", "best_probability", p, p, p, step=200) for name, p in chances.items()]
    ax = plots.efficiency_against_k(pd.concat([frame, pd.DataFrame(rivals)]))
    assert [t.get_text() for t in ax.texts] == ["p=0.40 (K=1 - mean: 0.50)", "p=0.97", "p=0.70"]
    assert not plots.efficiency_against_k(frame[frame["statistic"] != "best_probability"]).texts


def test_snr_axis_is_linear_once_a_signal_is_negative(frame):
    assert plots.snr_against_k(frame).get_yscale() == "log"
    negative = frame.assign(value=frame["value"].where(frame["statistic"] != "snr", -frame["value"]))
    ax = plots.snr_against_k(negative)
    assert ax.get_yscale() == "linear"
    assert by_gid(ax, "zero") is not None
    assert ax.get_ylabel() == "SNR of a step"


def test_variance_over_training_of_one_student_has_a_line_a_kernel(frame):
    ax = plots.variance_over_training(frame, student="medium")
    assert legend(ax) == list(KS)
    line = by_gid(ax, "measured:medium:K=4")
    chosen = frame[(frame["student"] == "medium") & (frame["statistic"] == "trace") & (frame["kernel"] == "K=4")]
    np.testing.assert_allclose(line.get_xydata(), chosen[["step", "value"]])


def test_efficiency_over_training_is_drawn_on_a_linear_axis(frame):
    ax = plots.variance_over_training(frame, statistic="efficiency")
    assert ax.get_yscale() == "linear"
    assert ax.get_ylabel() == "efficiency η"
    assert clashes(ax) == []
    assert plots.variance_over_training(frame).get_yscale() == "log"


def test_variance_over_training_of_several_students_has_the_extreme_kernels(frame):
    ax = plots.variance_over_training(frame)
    assert legend(ax) == [*LABELS, "K=1", "immediate"]
    assert len([c for c in ax.lines if str(c.get_gid()).startswith("measured:")]) == 6
    assert legend(plots.variance_over_training(frame, kernels=["K=2"])) == [*LABELS, "K=2"]
    with pytest.raises(ValueError, match=r"kernel K=3; measured kernels: K=1, K=2"):
        plots.variance_over_training(frame, kernels=["K=3"])
    with pytest.raises(ValueError, match=r"no student 'huge'.*it has: small, medium, large"):
        plots.variance_over_training(frame, student="huge")


def test_variance_over_training_draws_the_intervals_of_several_seeds(frame):
    seeds = pd.concat([frame.assign(value=frame["value"] * scale, seed=i) for i, scale in enumerate((0.9, 1.0, 1.2))])
    combined = across_seeds(seeds)
    ax = plots.variance_over_training(combined, student="small", kernels=["K=1"])
    own = combined.query("student == 'small' and kernel == 'K=1' and statistic == 'trace'").sort_values("step")
    corners = by_gid(ax, "measured:small:K=1:interval").get_paths()[0].vertices
    np.testing.assert_allclose(corners[:, 1].max(), own["high"].max())
    np.testing.assert_allclose(by_gid(ax, "measured:small:K=1").get_ydata(), own["value"])
    assert (own["n"] == 3).all()


def test_variance_against_size_has_a_line_a_kernel(frame):
    ax = plots.variance_against_size(frame, statistic="trace_ratio", exponents=False)
    assert legend(ax) == list(KS)
    expected = [values(frame, student, "trace_ratio")[2] for student in SIZES]
    np.testing.assert_allclose(by_gid(ax, "measured:K=4").get_ydata(), expected)
    np.testing.assert_allclose(by_gid(ax, "measured:K=4").get_xdata(), list(SIZES.values()), rtol=0.1)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["22k", "90k", "500k"]


def test_variance_against_size_fits_exponents_with_their_intervals(frame):
    ax = plots.variance_against_size(frame)
    sizes = np.array(list(SIZES.values()), dtype=float)
    value, low, high = (
        np.array([values(frame, student, "trace", end)[1] for student in SIZES]) for end in ("value", "low", "high")
    )
    law = power_law(sizes, value, np.log(high / low) / 3.92)
    assert legend(ax)[1] == f"K=2: {law.exponent:.2f} ± {law.exponent - law.low:.2f}"
    assert ax.get_legend().get_title().get_text() == "exponent of size, 95 % interval"
    x, y = by_gid(ax, "law:K=2").get_data()
    np.testing.assert_allclose(y, law.scale * x**law.exponent)
    two = plots.variance_against_size(frame[frame["student"] != "small"])
    assert legend(two) == list(KS)
    exact = plots.variance_against_size(frame, statistic="trace_ratio")
    assert legend(exact)[0] == "K=1"  # one by definition: nothing to fit


def test_score_power_is_one_line_and_its_exponent_the_fisher_traces(frame):
    ax = plots.variance_against_size(frame, statistic="score_power")
    assert len([line for line in ax.lines if str(line.get_gid()).startswith("measured:")]) == 1
    np.testing.assert_allclose(by_gid(ax, "measured:tr F").get_ydata(), [40.0, 80.0, 160.0])
    assert legend(ax)[0].startswith("tr F: 0.4")
    per = plots.variance_against_size(frame, statistic="variance_per_score_power")
    assert len(legend(per)) == 5 and per.get_ylabel() == "tr Cov / tr F"


def test_within_and_between_fill_the_bar(frame):
    ax = plots.within_between_shares(frame)
    for student in SIZES:
        within = [p.get_height() for p in ax.patches if p.get_gid() == f"within:{student}"]
        between = [p.get_height() for p in ax.patches if p.get_gid() == f"between:{student}"]
        np.testing.assert_allclose(within, values(frame, student, "within_share"))
        np.testing.assert_allclose(np.add(within, between), 1.0)
    assert legend(ax) == [*LABELS, "within prompts", "between prompts"]


def test_a_share_above_one_is_shown_as_it_is():
    frame = pd.DataFrame([row("small", "K=1", "within_share", 1.05, 0.98, 1.12)])
    ax = plots.within_between_shares(frame)
    assert [p.get_height() for p in ax.patches] == [1.05, 0.0]
    assert ax.get_ylim()[1] > 1.12


def test_one_student_and_one_kernel_is_enough():
    frame = study(steps=(0,), students=("small",))
    for name in FIGURES:
        kernel = "K=2" if name == "theory_beside_measurement" else "K=1"
        ax = getattr(plots, name)(frame[frame["kernel"] == kernel])
        assert ax.lines or ax.patches, name


def test_save_writes_png_and_svg_the_same_each_time(frame, tmp_path):
    first = plots.save(plots.snr_against_k(frame), tmp_path / "new" / "snr.png")
    again = plots.save(plots.snr_against_k(frame).figure, tmp_path / "again.v2")
    assert [path.name for path in first] == ["snr.png", "snr.svg"]
    assert [path.name for path in again] == ["again.v2.png", "again.v2.svg"]
    assert first[0].read_bytes().startswith(b"\x89PNG")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
