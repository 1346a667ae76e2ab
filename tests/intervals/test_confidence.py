"""A confidence is a share between 0 and 1, wherever one is taken."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from kvar.analysis import plan, toward
from kvar.analysis.exact import moments_of
from kvar.intervals import (
    flatness,
    jackknife,
    mean_with_interval,
    power_law,
    ratio_of_means,
    squared_length,
    wilson,
)
from kvar.intervals.quantiles import normal_quantile, t_quantile

X = np.array([1.0, 2.0, 4.0])
FUNCTIONS = [
    lambda c: jackknife(np.array([[2.0], [1.0], [3.0]]), 2, c),
    lambda c: mean_with_interval(X, c),
    lambda c: ratio_of_means(X, X, c),
    lambda c: power_law(X, X, confidence=c),
    lambda c: flatness(X, X, c),
    lambda c: squared_length(np.array([[2.0], [1.0], [3.0]]), np.array([1.0]), 2, c),
    lambda c: wilson(0.5, 20, c),
    lambda c: wilson(0.5, 0, c),
    lambda c: toward(MOMENTS, ["K=1"], 4, confidence=c),
    lambda c: plan(MOMENTS, "K=1", 4, confidence=c),
]
MOMENTS = moments_of(1 + torch.randn(2, 40, 3, generator=torch.Generator().manual_seed(0)), names=["K=1", "K=2"])


@pytest.mark.parametrize("value", [95, 1.0, 0, -0.5, math.nan, None, "0.95"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_other_confidence_is_taken(function, value):
    function(0.9)
    with pytest.raises(ValueError, match="confidence must lie between 0 and 1; got .*Use 0.95"):
        function(value)


def test_quantiles_are_those_of_tables():
    assert math.isclose(normal_quantile(0.99), 2.5758, abs_tol=1e-4)
    np.testing.assert_allclose(t_quantile(np.array([1.0, 10.0]), 0.95), [12.7062, 2.2281], atol=1e-4)
    assert np.isnan(t_quantile(0, 0.95))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"power": None}, "power must lie between 0 and 1; got None"),
        ({"batch": 0}, "batch must be at least rollouts_per_prompt, 1, .*got 0"),
        ({"group": "decoder"}, "no parameter group 'decoder'; measured groups: all"),
    ],
)
def test_plans_of_nothing_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        plan(MOMENTS, "K=1", **options)
