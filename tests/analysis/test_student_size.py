"""Score power, exponents over student sizes, flatness, and seeds combined."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from kvar.analysis import (
    across_seeds,
    flatness,
    mean_with_interval,
    power_law,
    score_power,
    trace_covariance,
    variance_per_score_power,
)
from kvar.analysis.exact import TokenMDP, moments_of
from kvar.gradients import gradient_moments
from kvar.returns import KStep, returns


def test_score_power_is_the_variance_of_the_sum_of_scores() -> None:
    """E sum_t |s_t|^2 = E|sum_t s_t|^2, exactly by enumeration; the estimate agrees and its interval holds it."""
    mdp = TokenMDP(3, 4, seed=2, state="last-token")
    rollouts, values = mdp.sample(400, seed=0)
    weights = torch.cat([rollouts.mask[None].double(), returns(values, rollouts.mask, [KStep(1)])])
    moments = gradient_moments(mdp.student, rollouts, weights, ["sum of scores", "K=1"], score_power=True)
    every, _ = mdp.responses()
    ones = gradient_moments(mdp.student, every, every.mask[None].double(), score_power=True)
    assert ones.score_power is not None
    p = mdp.probabilities
    exact = float((p * ones.score_power).sum())
    assert exact == pytest.approx(float((p * ones.sq_norm[0]).sum()))
    found = score_power(moments)
    assert found.low[0] < exact < found.high[0]
    ratio = variance_per_score_power(moments)
    np.testing.assert_allclose(ratio.value, trace_covariance(moments).value / found.value)
    assert ratio.value[0] == pytest.approx(1.0, rel=0.15)
    with pytest.raises(ValueError, match="score_power=True"):
        score_power(moments_of(torch.randn(1, 5, 2)))


def test_power_law_intervals_cover() -> None:
    rng, x = np.random.default_rng(0), np.array([1.0, 3.0, 10.0, 30.0, 100.0])
    hits, plain = 0, 0
    for _ in range(1000):
        y = 2 * x**0.7 * np.exp(rng.normal(0, 0.1, 5))
        weighted, fitted = power_law(x, y, np.full(5, 0.1)), power_law(x, y)
        hits += weighted.low <= 0.7 <= weighted.high
        plain += fitted.low <= 0.7 <= fitted.high
    assert plain / 1000 == pytest.approx(0.95, abs=0.02)
    assert hits / 1000 >= 0.95  # the wider of two


def test_flatness_is_rejected_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    error = np.array([0.05, 0.1, 0.2])
    p = [flatness(np.exp(1 + error * rng.normal(size=3)), error).p for _ in range(2000)]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.015)
    steep = flatness(np.array([1.0, 2.0, 4.0]), error)
    assert steep.p < 1e-6 and steep.ratio_low < 4.0 < steep.ratio_high


def test_seeds_are_combined_by_their_spread() -> None:
    rng, hits = np.random.default_rng(2), 0
    for _ in range(1000):
        _mean, low, high = mean_with_interval(rng.normal(3.0, 1.0, 4))
        hits += low <= 3.0 <= high
    assert hits / 1000 == pytest.approx(0.95, abs=0.02)
    frames = [
        pd.DataFrame(
            {"student": "s", "kernel": ["K=1", "K=2"], "statistic": "trace", "value": [v, 4 * v], "low": 0.9 * v,
             "high": 1.1 * v, "seed": seed}
        )
        for seed, v in enumerate([1.0, 2.0, 4.0])
    ]  # fmt: skip
    table = across_seeds(pd.concat(frames))
    np.testing.assert_allclose(table["value"], [2.0, 8.0])  # geometric means
    assert (table["n"] == 3).all() and ((table["low"] < table["value"]) & (table["value"] < table["high"])).all()
    with pytest.raises(ValueError, match="seed 0 occurs twice for student=s, kernel=K=1"):
        across_seeds(pd.concat([frames[0], frames[0]]))
    with pytest.raises(ValueError, match="no column 'seed'"):
        across_seeds(frames[0].drop(columns="seed"))


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="two distinct sizes"):
        power_law(np.array([1.0, 1.0]), np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="y must be positive"):
        power_law(np.array([1.0, 2.0]), np.array([1.0, -2.0]))
    with pytest.raises(ValueError, match="with positive errors"):
        flatness(np.array([1.0, 2.0]), np.array([0.1, 0.0]))
    one = mean_with_interval(np.array([2.0]))
    assert one[0] == 2.0 and np.isnan(one[1])
