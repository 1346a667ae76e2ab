"""How many prompts would tell the target's gradient from zero, by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from kvar.analysis.exact import moments_of
from kvar.results.target_units import target_units


def test_gradients_of_one_number() -> None:
    """|g*|^2 is the mean product of two distinct gradients; the error of its signed root is the jackknife's."""
    x = [3.0, -1.0, 2.0, 1.5, -0.5, 0.5]

    def root(values: list[float]) -> float:
        pairs = [a * b for a, b in itertools.combinations(values, 2)]
        mean = sum(pairs) / len(pairs)
        return float(np.sign(mean) * abs(mean) ** 0.5)

    left = [root(x[:i] + x[i + 1 :]) for i in range(6)]
    error = (5 / 6 * sum((r - sum(left) / 6) ** 2 for r in left)) ** 0.5
    by_hand = 6 * ((1.959964 + 0.841621) * error / root(x)) ** 2
    moments = moments_of(torch.tensor(x, dtype=torch.float64)[None, :, None], torch.arange(6), ("K=1",))
    assert target_units(moments, "all", "K=1") == np.ceil(by_hand)
    lost = moments_of(torch.tensor([1.0, -1.0, 2.0, -2.0]).double()[None, :, None], torch.arange(4), ("K=1",))
    assert target_units(lost, "all", "K=1") == pytest.approx(np.inf)
