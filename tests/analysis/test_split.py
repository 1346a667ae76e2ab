"""The best split of a budget into prompts and responses, against sums by hand, enumeration and known draws."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from kvar.analysis import optimal_rollouts
from kvar.analysis.exact import moments_of
from kvar.analysis.replicates import replicates
from kvar.analysis.step.design import within_of
from kvar.analysis.step.larger_step import gain_of, noiseless_share, times_for_share
from kvar.analysis.step.split import break_even, noise_at_budget, rollouts_from_ratio, steepest_within
from kvar.intervals import Interval


def draw(prompts, rollouts, between, within, seed):
    """Moments of gradients of three numbers, whose variances between and within prompts are known."""
    rng = np.random.default_rng(seed)
    parts = [math.sqrt(v / 3) * rng.standard_normal((prompts, n, 3)) for v, n in ((between, 1), (within, rollouts))]
    gradients = torch.from_numpy(0.5 + parts[0] + parts[1]).reshape(1, -1, 3)
    return moments_of(gradients, torch.arange(prompts).repeat_interleave(rollouts))


def test_the_optimum_is_where_a_search_finds_it():
    between, within, prompt, response = 1.5, 6.0, 50.0, 20.0
    best = float(rollouts_from_ratio(np.array(between / within), prompt / response))
    assert best == pytest.approx(math.sqrt(10))  # sqrt(6 / 1.5 * 50 / 20)
    grid = np.linspace(0.5, 20, 20_001)
    noise = (between + within / grid) * (prompt + grid * response)
    assert grid[noise.argmin()] == pytest.approx(best, abs=1e-3)
    np.testing.assert_allclose(noise_at_budget(between, within, 4, prompt, response), 3.0 * 130)
    least = (math.sqrt(between * prompt) + math.sqrt(within * response)) ** 2
    np.testing.assert_allclose(noise_at_budget(between, within, best, prompt, response), least)


def test_two_responses_pay_from_the_break_even_on():
    between, within, response = 0.8, 3.2, 7.0
    even = response * float(break_even(np.array(between / within)))
    assert even == pytest.approx(3.5)
    one, two = (lambda cost, r=r: (between + within / r) * (cost + r * response) for r in (1, 2))
    assert one(even) == pytest.approx(two(even))
    assert one(even - 0.1) < two(even - 0.1) and one(even + 0.1) > two(even + 0.1)


def test_without_a_prompts_cost_one_response_is_best_and_without_differences_all_of_them():
    assert rollouts_from_ratio(np.array([0.5, -0.1]), 0.0).tolist() == [0.0, 0.0]
    assert rollouts_from_ratio(np.array([0.0, -0.1]), 2.0).tolist() == [math.inf, math.inf]


@pytest.mark.parametrize(("between", "within"), [(1.0, 4.0), (3.0, 3.0)])
def test_intervals_of_the_optimum_hold_it_as_often_as_they_say(between, within):
    truth, held, values = math.sqrt(within / between * 2.0), 0, []
    for seed in range(120):
        est = optimal_rollouts(draw(80, 4, between, within, seed), 2.0, unit="prompt")
        held += bool(est.low[0] <= truth <= est.high[0])
        values.append(est.value[0])
    assert np.median(values) == pytest.approx(truth, rel=0.05)
    assert 107 <= held <= 120  # 95 % of 120 is 114, with a standard deviation of 2.4


def test_prompts_that_do_not_differ_leave_the_optimum_open_above():
    open_ended = [optimal_rollouts(draw(60, 4, 0.0, 4.0, seed), 2.0, unit="prompt").high[0] for seed in range(40)]
    assert np.isinf(open_ended).mean() > 0.9


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"prompt_cost": -1}, "prompt_cost must be 0 or a positive number; got -1"),
        ({"prompt_cost": 1, "response_cost": 0}, "response_cost must be a positive number; got 0"),
        ({"prompt_cost": 1, "unit": "trajectory"}, "cannot tell prompts apart"),
        ({"prompt_cost": 1, "confidence": 95}, "confidence must lie between 0 and 1"),
        ({"prompt_cost": 1, "group": "head"}, "no parameter group 'head'"),
    ],
)
def test_bad_options_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        optimal_rollouts(draw(10, 2, 1.0, 1.0, 0), **options)
    with pytest.raises(ValueError, match="two rollouts or more"):
        optimal_rollouts(draw(10, 1, 1.0, 1.0, 0), 1.0)


CHANCE, SCORE, RETURN = np.array([0.5, 0.3, 0.2]), np.eye(3) - [0.5, 0.3, 0.2], np.array([1.0, 4.0, -3.0])


def enumerated(rollouts):
    """Of one token with leave-one-out: E g, variance of the prompt's mean, expected variance among its responses."""
    mean, square, among = np.zeros(3), 0.0, 0.0
    for tokens in itertools.product(range(3), repeat=rollouts):
        p = CHANCE[list(tokens)].prod()
        returns = RETURN[list(tokens)]
        others = (returns.sum() - returns) / (rollouts - 1)
        each = (returns - others)[:, None] * SCORE[list(tokens)]
        mean += p * each.mean(axis=0)
        square += p * (each.mean(axis=0) ** 2).sum()
        among += p * each.var(axis=0, ddof=1).sum()
    return mean, square - (mean**2).sum(), among


def test_leave_one_outs_noise_falls_with_the_responses_as_the_docstring_says():
    """One prompt and one token, over all draws: R Var = V1 + V2 / (R-1), between what is said at least and at most."""
    noise = {}
    for r in (2, 3, 4, 5):
        mean, variance, among = enumerated(r)
        np.testing.assert_allclose(mean, CHANCE @ (RETURN[:, None] * SCORE), atol=1e-12)
        noise[r] = r * variance
        np.testing.assert_allclose(variance - among / r, (mean**2).sum() / (r - 1) ** 2, rtol=1e-9)  # the rest
    second = (noise[2] - noise[3]) / (1 - 1 / 2)
    first = noise[2] - second
    for r in (4, 5):
        np.testing.assert_allclose(noise[r], first + second / (r - 1))
    assert first > 0 and second > 0
    for r in (2, 3, 5):
        low, high = sorted((noise[4], noise[4] * steepest_within(4, r)))
        assert low < noise[r] < high


def test_the_measured_within_is_the_variance_among_responses():
    rng = np.random.default_rng(0)
    tokens = rng.choice(3, p=CHANCE, size=(20_000, 4))
    returns = RETURN[tokens]
    each = (returns - (returns.sum(axis=1, keepdims=True) - returns) / 3)[..., None] * SCORE[tokens]
    moments = moments_of(torch.from_numpy(each).reshape(1, -1, 3), torch.arange(20_000).repeat_interleave(4))
    measured = within_of(replicates(moments, unit="prompt"))[0, 0]
    assert measured == pytest.approx(enumerated(4)[2], rel=0.02)


def test_what_noise_leaves_and_what_a_larger_step_buys():
    """|E g|^2 = 4 and a variance of 12 for the step: efficiency a quarter of the noiseless one, 2 / 5 at twice."""
    snr = Interval(4 / 12, 0.2, 0.5, 30)
    assert noiseless_share(snr).value == pytest.approx(0.25)
    twice = gain_of(snr)
    assert twice.value == pytest.approx((4 / (4 + 6)) / (4 / (4 + 12)))
    assert (twice.low, twice.high) == pytest.approx((2 * 1.5 / 2, 2 * 1.2 / 1.4))
    assert times_for_share(snr, 0.5).value == pytest.approx(3)  # a variance of 4
    assert times_for_share(snr, 0.8).value == pytest.approx(12)  # of 1
    lost = Interval(-0.1, -0.5, 0.4)
    assert noiseless_share(lost).value == 0 and gain_of(lost).high == 2 and times_for_share(lost, 0.5).high == math.inf
    with pytest.raises(ValueError, match="share must lie between 0 and 1; got 1"):
        times_for_share(snr, 1)
