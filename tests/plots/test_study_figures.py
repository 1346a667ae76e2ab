"""Figures with a panel a task or student, by what is drawn."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest

import kvar.plots as plots
from kvar.intervals.over_seeds import mean_with_interval
from tests.plots.drawn import by_gid
from tests.plots.study_frames import METHODS, STUDENTS, TASKS, chances, curves, kernels, points

FIGURES = {
    "learning_curves": curves,
    "score_against_variance": points,
    "kernels_over_tasks": kernels,
    "best_k_over_size": chances,
}


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def panel(figure, title):
    (ax,) = [ax for ax in figure.axes if ax.get_title() == title]
    return ax


@pytest.mark.parametrize("name", FIGURES)
def test_frames_and_settings_are_left_alone_and_no_text_is_cut_off(name):
    before, frame = dict(matplotlib.rcParams), FIGURES[name]()
    untouched = frame.copy()
    figure = getattr(plots, name)(frame)
    assert dict(matplotlib.rcParams) == before and frame.equals(untouched)
    page = figure.bbox
    texts = [*figure.legends[0].get_texts(), *figure.texts]
    for ax in figure.axes:
        texts += [ax.title, ax.xaxis.label, ax.yaxis.label]
    for text in texts:
        box = text.get_window_extent()
        if text.get_text() and text.get_visible():
            assert page.x0 - 1 <= box.x0 and box.x1 <= page.x1 + 1, text.get_text()
            assert page.y0 - 1 <= box.y0 and box.y1 <= page.y1 + 1, text.get_text()
    below = figure.legends[0].get_window_extent()
    assert all(ax.xaxis.label.get_window_extent().y0 >= below.y1 - 1 for ax in figure.axes if ax.get_xlabel())


@pytest.mark.parametrize("name", FIGURES)
def test_missing_columns_and_empty_frames_are_named(name):
    frame = FIGURES[name]()
    with pytest.raises(ValueError, match=r"lacks the column student\."):
        getattr(plots, name)(frame.drop(columns="student"))
    with pytest.raises(ValueError, match="is empty"):
        getattr(plots, name)(frame.iloc[:0])


def test_learning_curves_are_means_with_the_range_of_seeds():
    frame = curves()
    figure = plots.learning_curves(frame)
    assert legend(figure) == list(METHODS)  # kl has no gap
    assert [ax.get_title() for ax in figure.axes[:2]] == ["translation, small (52k)", "translation, large (420k)"]
    ax = panel(figure, "sums, small (52k)")
    own = frame.query("task == 'sums' and student == 'small' and method == 'K=2' and quantity == 'total_gap'")
    by_step = own.groupby("step")["value"]
    np.testing.assert_allclose(by_gid(ax, "sums:small:K=2").get_ydata(), by_step.mean())
    band = by_gid(ax, "sums:small:K=2:range").get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (pytest.approx(by_step.min().min()), pytest.approx(by_step.max().max()))
    assert legend(plots.learning_curves(frame, "loss", methods=["kl", "llmr"])) == ["kl", "llmr"]
    with pytest.raises(
        ValueError, match="no method has 'return' in its logs; there are loss, response_length, total_gap"
    ):
        plots.learning_curves(frame, "return")


@pytest.mark.parametrize("log_x", [False, True])
def test_gain_against_noise_shows_means_intervals_seeds_and_rank_correlation(log_x):
    frame = points()
    figure = plots.score_against_variance(frame, log_x=log_x, y_label="gain in J")
    assert legend(figure) == list(METHODS)
    ax = panel(figure, "sums, large (420k)")
    own = frame.query("task == 'sums' and student == 'large' and method == 'K=4'")
    x = mean_with_interval(own["x"].to_numpy(), scale="log" if log_x else "plain")
    y = mean_with_interval(own["y"].to_numpy())
    mean = by_gid(ax, "mean:K=4")
    np.testing.assert_allclose([mean.get_xdata()[0], mean.get_ydata()[0]], [x[0], y[0]])
    np.testing.assert_allclose(by_gid(ax, "x:K=4").get_segments()[0][:, 0], x[1:])
    np.testing.assert_allclose(by_gid(ax, "y:K=4").get_segments()[0][:, 1], y[1:])
    np.testing.assert_allclose(by_gid(ax, "seeds:K=4").get_ydata(), own["y"])
    assert by_gid(ax, "rho:sums:large").get_text() == r"$\rho$ = -1.00"
    marks = [by_gid(ax, f"mean:{name}") for name in METHODS]  # nothing but the legend names them: all look different
    assert len({(mark.get_marker(), mark.get_color()) for mark in marks}) == len(METHODS)
    partial = frame.drop(own.index[:1])  # a seed of one method is missing: no correlation over seeds is told
    ax = panel(plots.score_against_variance(partial, log_x=log_x), "sums, large (420k)")
    assert not [text for text in ax.texts if (text.get_gid() or "").startswith("rho")]
    with pytest.raises(ValueError, match="nothing to compare"):
        plots.score_against_variance(frame.assign(x=np.nan))


def test_kernels_over_tasks_has_a_row_a_statistic():
    frame = kernels()
    figure = plots.kernels_over_tasks(frame)
    grid = np.reshape(figure.axes, (4, len(TASKS)))
    assert [ax.get_title() for ax in grid[0]] == list(TASKS)
    own = frame.query("task == 'sums' and student == 'large' and statistic == 'mse_in_noise'")
    np.testing.assert_allclose(by_gid(grid[2, 1], "mse_in_noise:sums:large").get_ydata(), own["value"])
    assert [ax.get_yscale() for ax in grid[:, 0]] == ["log", "linear", "log", "linear"]
    assert len(plots.kernels_over_tasks(frame[frame["statistic"] != "efficiency"]).axes) == 3 * len(TASKS)
    with pytest.raises(ValueError, match="two rows for one point"):
        plots.kernels_over_tasks(frame.assign(statistic="efficiency"))
    with pytest.raises(ValueError, match="no value of trace_ratio"):
        plots.kernels_over_tasks(frame.assign(value=np.nan))


def test_discs_of_the_best_k_have_the_area_of_its_probability():
    figure = plots.best_k_over_size(chances())
    assert legend(figure) == ["at the start", "after llmr", "probability 1"]
    for task in TASKS:
        discs = by_gid(panel(figure, task), f"{task}:at the start")
        areas = discs.get_sizes()
        np.testing.assert_allclose(areas / areas.sum() * len(STUDENTS), np.tile((0.05, 0.1, 0.6, 0.2, 0.05), 2))
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["1", "2", "4", "8", "∞"]
    with pytest.raises(ValueError, match="no probability of a best K"):
        plots.best_k_over_size(chances().assign(probability=np.nan))
