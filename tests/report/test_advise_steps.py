"""``kvar advise`` for a run: beyond how many responses bias outweighs noise, and the mean of many steps."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from kvar.analysis.exact import moments_of
from kvar.intervals import Interval
from kvar.report.advise import advise_probes
from kvar.report.words.advice import WIDTH
from kvar.results.advice import Overtaking
from kvar.results.probes import Probe


def noisy_or_biased(noise=30.0, prompts=600, rollouts=4, seed=0, names=("K=1", "K=4"), batch=16):
    """A probe of K=1, of mean (1, 0) and this noise, and K=4, (0.8, 0.6) with noise of 1: 0.64 of K=1's direction."""
    rng = np.random.default_rng(seed)
    draws = rng.standard_normal((2, prompts, rollouts, 2)) * np.sqrt(np.array([noise, 1.0]) / 2)[:, None, None, None]
    gradients = torch.from_numpy(np.array([[1.0, 0.0], [0.8, 0.6]])[:, None, None] + draws).reshape(2, -1, 2)
    index = torch.arange(prompts).repeat_interleave(rollouts)
    return Probe("known", moments_of(gradients, index, names=list(names)), 10.0, batch=batch)


def test_bias_outweighs_noise_beyond_so_many_responses():
    """(0.64 x 30 - 1) / 0.36 = 50.6 responses, 3.2 steps of 16."""
    advice = advise_probes([noisy_or_biased(prompts=2000)], 160)
    found = advice.overtaking
    assert (advice.estimator, found.name) == ("K=4", "K=1")
    assert found.steps.low < 50.6 / 16 < found.steps.high
    assert found.steps.value == pytest.approx(50.6 / 16, rel=0.3)
    text = " ".join(str(advice).split())
    told = f"more than about {16 * found.steps.value:.0f} responses ({found.steps.value:.1f} steps of this size; 95 %: "
    assert f"Bias stays where noise averages out: summed over {told}" in text and ", K=1 points better." in text
    larger = advise_probes([noisy_or_biased(prompts=2000)], 320).overtaking  # half as many steps of twice the size
    assert larger.steps.value == pytest.approx(found.steps.value / 2)


def test_over_many_steps_the_least_biased_is_advised():
    probe = noisy_or_biased()
    one, many = (advise_probes([probe], 160, steps=steps) for steps in (1, 24))
    whole = advise_probes([probe], 24 * 160)
    assert (one.estimator, many.estimator, whole.estimator) == ("K=4", "K=1", "K=1")
    for name in ("K=1", "K=4"):  # efficiency at 24 times the budget, a step's prompts
        assert many.ranking[name].efficiency == whole.ranking[name].efficiency
        assert (many.ranking[name].prompts, many.ranking[name].chance) == (16, whole.ranking[name].chance)
    assert (many.snr, many.efficiency) == (whole.snr, whole.efficiency)
    assert [row.efficiency for row in many.split.rows] == [
        row.efficiency for row in whole.split.rows if row.rollouts < 9
    ]
    assert many.overtaking is None
    text = " ".join(str(many).split())
    for words in (
        "ADVICE for 160 sampled tokens a step, and for the mean of 24 steps: K=1, 16 prompts x 1 response.",
        "Efficiency is that of the mean of 24 steps, toward the gradient of J",
        "Noise leaves the mean of 24 steps 9",
        "tokens a step, 80 %",
    ):
        assert words in text
    assert "mean of" not in " ".join(str(one).split()).split("How sure")[0]
    short = advise_probes([probe], 160, steps=2)  # what is summed counts all steps
    assert short.estimator == "K=4" and short.overtaking == one.overtaking


def test_seeds_say_it_by_the_spread_among_them():
    advice = advise_probes([noisy_or_biased(seed=seed) for seed in range(5)], 160)
    assert advice.overtaking.steps.n == 5
    assert advice.overtaking.steps.low < 50.6 / 16 < advice.overtaking.steps.high


@pytest.mark.parametrize(
    "probe",
    [
        noisy_or_biased(noise=0.5),  # K=1 is the best, and unbiased
        noisy_or_biased(noise=4000.0),  # the target is not resolved
        noisy_or_biased(names=("K=1", "K=1 - teacher-value")),  # by their names both are unbiased
    ],
)
def test_nothing_is_said_where_nothing_is_told(probe):
    advice = advise_probes([probe], 160)
    assert advice.overtaking is None and "Bias stays" not in str(advice)


def test_without_an_unbiased_estimator_the_least_biased_is_measured():
    """Toward (1, 0), the data's, which no budget buys: K=4 is (0.8, 0.6), quiet; K=2 (1, 0.1), of noise 30."""
    rng = np.random.default_rng(2)
    means, power = np.array([[0.8, 0.6], [1.0, 0.1], [1.0, 0.0]]), np.sqrt(np.array([1.0, 30.0, 1.0]) / 2)
    gradients = means[:, None] + rng.standard_normal((3, 3200, 2)) * power[:, None, None]
    index = torch.arange(800).repeat_interleave(4)
    moments = moments_of(torch.from_numpy(gradients), index, names=["K=4", "K=2", "data"])
    advice = advise_probes([Probe("known", moments, 10.0, batch=16)], 160, reference="data")
    c4, c2 = 0.64, 1 / 1.01
    exact = (c4 * 30 / 1.01 - c2) / (c2 - c4) / 16
    assert (advice.estimator, advice.overtaking.name) == ("K=4", "K=2")
    assert advice.overtaking.steps.low < exact < advice.overtaking.steps.high


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (
            (56.0, 31.0, 144.0),
            "summed over more than about 896 responses (56 steps of this size; 95 %: 496 to 2,300), K=1 points better.",
        ),
        ((56.0, 31.0, math.inf), "(56 steps of this size; 95 %: at least 496), K=1 points better."),
        ((1.0, 0.0, 3.0), "more than about 16 responses (1 step of this size; 95 %: at most 48), K=1 points better."),
        (
            (math.inf, 31.0, math.inf),
            "yet that K=1, the least biased, ever points better is not resolved; it takes a sum of more than 496 "
            "responses (31 steps of this size; 95 %).",
        ),
        ((0.0, 0.0, 0.0), "K=1, the least biased, points better in a step of any size."),
        (
            (0.0, 0.0, 2.0),
            "K=1, the least biased, points better in a step of any size (95 %: beyond 32 responses at the latest).",
        ),
    ],
)
def test_each_case_has_its_words(steps, words):
    advice = advise_probes([noisy_or_biased(prompts=300)], 160)
    assert advice.estimator == "K=4"
    advice = dataclasses.replace(advice, overtaking=Overtaking("K=1", Interval(*steps, n=100)))
    text = str(advice)
    assert words in " ".join(text.split())
    assert "nan" not in text and "inf" not in text and max(map(len, text.splitlines())) <= WIDTH
