"""Ratios and rank correlations over seeds, against numbers by hand and against coverage."""

from __future__ import annotations

import numpy as np
import pytest

from kvar.intervals.fieller import ratio_of_means
from kvar.intervals.over_seeds import mean_with_interval
from kvar.intervals.rank_correlation import rank_correlation


def test_a_sure_denominator_gives_the_t_interval_of_the_numerator_over_it():
    x = np.array([1.0, 2.0, 6.0])
    np.testing.assert_allclose(ratio_of_means(x, np.full(3, 4.0)), np.array(mean_with_interval(x)) / 4)


def test_ends_of_the_ratio_are_where_the_t_test_turns():
    rng = np.random.default_rng(0)
    x, y = rng.normal(5, 1, 4), rng.normal(3, 0.3, 4)
    value, low, high = ratio_of_means(x, y)
    assert low < value < high
    for end in (low, high):
        mean, below, above = mean_with_interval(x - end * y)
        assert min(abs(below), abs(above)) < 1e-9 * max(abs(mean), 1)


def test_the_ratios_interval_covers_at_three_seeds():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(800):
        _, low, high = ratio_of_means(rng.normal(8, 1, 3), rng.normal(2, 0.2, 3))
        hits += low <= 4 <= high
    assert abs(hits / 800 - 0.95) < 0.025


def test_a_denominator_that_is_not_resolved_leaves_no_end():
    assert ratio_of_means(np.array([1.0, 1.1, 0.9]), np.array([0.5, -0.2, 0.1]))[1:] == (-np.inf, np.inf)
    assert np.isnan(ratio_of_means(np.array([2.0]), np.array([1.0]))[1:]).all()
    assert np.isnan(ratio_of_means(np.array([2.0, np.nan]), np.array([1.0, 1.0]))).all()
    with pytest.raises(ValueError, match="same runs"):
        ratio_of_means(np.ones(2), np.ones(3))


def test_rank_correlation_of_one_seed_is_scipys_with_the_exact_p():
    from scipy.stats import permutation_test, spearmanr

    x, y = np.array([0.1, 0.4, 0.2, 0.9, 0.5]), np.array([1.0, 3.0, 5.0, 4.0, 2.0])
    found = rank_correlation(x, y)
    assert found.rho == pytest.approx(spearmanr(x, y).statistic)
    whole = permutation_test((x,), lambda a: spearmanr(a, y).statistic, permutation_type="pairings", n_resamples=np.inf)
    assert found.p == pytest.approx(whole.pvalue, abs=1e-9)
    assert np.isnan(found.low)


def test_what_all_seeds_share_counts_once():
    order = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    many = rank_correlation(np.tile(order, (9, 1)), np.tile(order, (9, 1)))
    assert (many.rho, many.seeds, many.estimators) == (pytest.approx(1.0), 9, 5)
    assert many.p == pytest.approx(2 / 120)  # nine copies of one order are one order


def test_p_is_uniform_where_there_is_nothing():
    rng = np.random.default_rng(2)
    ps = np.array([rank_correlation(rng.normal(size=(3, 5)), rng.normal(size=(3, 5))).p for _ in range(400)])
    assert abs((ps <= 0.1).mean() - 0.1) < 0.045 and abs((ps <= 0.5).mean() - 0.5) < 0.075


def test_rank_correlation_that_cannot_be_told_is_blank():
    assert np.isnan(rank_correlation(np.ones((3, 2)), np.ones((3, 2))).rho)
    assert np.isnan(rank_correlation(np.ones((3, 4)), np.arange(12.0).reshape(3, 4)).rho)  # no spread
    assert np.isnan(rank_correlation(np.full((3, 4), np.nan), np.arange(12.0).reshape(3, 4)).rho)
    with pytest.raises(ValueError, match="one shape"):
        rank_correlation(np.ones((3, 4)), np.ones((2, 4)))
