"""When a less biased estimator overtakes a quieter one, (30): by hand, by enumeration, and where it never does."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from kvar.analysis import overtakes
from kvar.analysis.exact import moments_of
from kvar.analysis.step.overtakes import crossing
from kvar.gradients import GradientMoments
from tests.analysis.overtakes_coverage import NAMES, coverage, exact, sample

SIGNS = torch.tensor([[1.0, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]).T.double()
"""Columns of mean 0, power 1 and no covariance."""


def table(
    first: tuple[float, float], second: tuple[float, float], noise: tuple[float, float], n: int
) -> GradientMoments:
    """Two estimators of these means, of noise powers ``noise`` that have nothing to do with each other; n rows."""
    parts = [torch.outer(SIGNS[:, e], torch.tensor([math.sqrt(v), 0.0]).double()) for e, v in enumerate(noise)]
    means = [torch.tensor(mean).double() for mean in (first, second)]
    return moments_of(
        torch.stack([m + x.repeat(n // 4, 1) for m, x in zip(means, parts, strict=True)]), names=["K=1", "K=4"]
    )


@pytest.mark.parametrize("scale", [1.0, 1e-4, -0.02])
def test_by_hand(scale: float) -> None:
    """Cosines^2 1 and 0.64, relative variances 36 and 1: (0.64 * 36 - 1) / (1 - 0.64) = 61.2, for any scale of K=1."""
    first = table((scale, 0.0), (math.copysign(0.8, scale), 0.6), (36 * scale**2, 1.0), 20000)
    found = overtakes(first, "K=1", "K=4")
    assert found.value == pytest.approx(61.2, rel=0.01)
    assert found.low < 61.2 < found.high and found.n == 20000
    assert overtakes(first, "K=4", "K=1").value == math.inf  # K=4 leads up to there, and not beyond


def test_steps_of_prompts_and_rollouts() -> None:
    """Between 4 and within 32 of K=1, of K=4 nothing and 1: R (4 + 32 / R) and 1, so (0.64 (32 + 4 R) - 1) / 0.36."""
    prompts, rollouts = 4000, 4
    first, second = (
        sum(
            (
                math.sqrt(between + within / 4) * SIGNS[:, e].repeat(prompts // 4).repeat_interleave(rollouts),
                math.sqrt(within * 3 / 4) * SIGNS[:, e + 1].repeat(prompts),  # of mean 0 in each prompt
            ),
            torch.zeros(prompts * rollouts),
        )
        for e, between, within in ((0, 4.0, 32.0), (1, 0.0, 1.0))
    )
    first = torch.stack([1 + first, 0 * first], dim=1)
    second = torch.stack([0.8 + second, 0.6 + 0 * second], dim=1)
    moments = moments_of(
        torch.stack([first, second]), torch.arange(prompts).repeat_interleave(rollouts), ["K=1", "K=4"]
    )
    for r in (1, 2, 8):
        found = overtakes(moments, "K=1", "K=4", rollouts_per_prompt=r, unit=None)
        assert found.value == pytest.approx((0.64 * (32 + 4 * r) - 1) / 0.36, rel=0.03)
        assert found.n == prompts


def test_value_and_interval_by_leaving_rows_out() -> None:
    """The line's two numbers anew for every subset of 39 rows, and the quadratic of the t test solved by numpy."""
    rng = np.random.default_rng(3)
    g = (
        np.array([[1.0, 0.0], [0.8, 0.6]])[:, None]
        + rng.standard_normal((2, 40, 2)) * np.array([0.9, 0.3])[:, None, None]
    )

    def line(rows: np.ndarray) -> np.ndarray:
        x, n = g[:, rows], len(rows)
        total, square = np.einsum("eip,fjp->ef", x, x), np.einsum("eip,fip->ef", x, x)
        s = (total - square) / (n * (n - 1))
        v = square / n - s
        a = [s[0, 0] ** 2, s[1, 0] ** 2]
        size = s[0, 0] ** 2 * s[1, 1]  # all are resolved
        return np.array([a[0] * s[1, 1] - a[1] * s[0, 0], a[0] * v[1, 1] - a[1] * v[0, 0]]) / size

    every = np.arange(40)
    parts = np.array([40 * line(every) - 39 * line(np.delete(every, i)) for i in every])
    mean, spread = parts.mean(axis=0), np.cov(parts.T) / 40 * 2.0226909**2  # t of 39 degrees of freedom
    ends = np.roots([mean[0] ** 2 - spread[0, 0], 2 * (mean.prod() - spread[0, 1]), mean[1] ** 2 - spread[1, 1]])
    found = overtakes(moments_of(torch.from_numpy(g), names=["K=1", "K=4"]), "K=1", "K=4")
    assert mean[0] ** 2 > spread[0, 0]
    expected = (-mean[1] / mean[0], max(ends.min(), 0), ends.max())
    np.testing.assert_allclose((found.value, found.low, found.high), expected, rtol=1e-6)


@pytest.mark.parametrize(("design", "other"), [("three tokens", "K=2"), ("flat policy", "K=4")])
def test_enumeration(design: str, other: str) -> None:
    truth = exact(design, other)
    many = overtakes(sample(design, 20000, 1), "K=1", other)
    assert many.low < truth < many.high
    assert many.value == pytest.approx(truth, rel=0.25)
    assert many.high - many.low < truth
    found = coverage(design, other, 256, 120)
    assert 0.88 <= found["covered"] <= 0.99 and found["resolved"] > 0.9


@pytest.mark.parametrize(
    ("first", "second", "noise", "expected"),
    [
        ((1.0, 0.0), (0.8, 0.6), (1.0, 1.0), (0.0, 0.0, 0.0)),  # as quiet and less biased: at every B
        ((1.0, 0.0), (-0.8, 0.6), (36.0, 1.0), (0.0, 0.0, 0.0)),  # the other leads away
        ((1.0, 0.0), (0.0, 1.0), (36.0, 1.0), (0.0, None, None)),  # the other leads nowhere: at almost every B
    ],
)
def test_where_it_leads_at_every_size(first: Any, second: Any, noise: Any, expected: Any) -> None:
    found = overtakes(table(first, second, noise, 4000), "K=1", "K=4")
    assert (found.value, found.low, found.high)[: 1 if expected[1] is None else 3] == (
        expected[:1] if expected[1] is None else expected
    )
    assert found.low == 0


def test_where_it_never_leads_beyond() -> None:
    moments = table((1.0, 0.0), (0.8, 0.6), (36.0, 1.0), 4000)
    assert str(overtakes(moments, "K=4", "K=1")) == "inf (inf to inf)"
    away = table((1.0, 0.0), (-0.8, 0.6), (36.0, 1.0), 4000)
    assert str(overtakes(away, "K=4", "K=1")) == "inf (inf to inf)"
    three = torch.tensor([[1.0, 0.0], [-0.5, 0.5], [-1.0, 0.0]])[:, None] + 0.1 * torch.randn(
        3, 400, 2, generator=torch.Generator().manual_seed(0)
    )
    both = moments_of(three, names=["K=1", "K=2", "K=4"])  # K=2 leads less far away than K=4: still never toward
    for pair in (("K=2", "K=4"), ("K=4", "K=2")):
        assert overtakes(both, *pair).value == math.inf


def test_a_bias_that_is_not_resolved_gives_one_end_alone() -> None:
    """Both unbiased: the quieter leads at every size, and there is no B; each interval has to reach inf."""
    reached = bounded = 0
    for seed in range(100):
        noise = torch.randn(2, 200, 3, generator=torch.Generator().manual_seed(seed))
        moments = moments_of(1 + noise * torch.tensor([3.0, 0.5])[:, None, None], names=["K=1", "K=2"])
        found = overtakes(moments, "K=1", "K=2")
        reached += found.high == math.inf
        bounded += 0 < found.low < math.inf
    assert reached >= 92
    assert bounded >= 80  # "at least so many" is told all the same


def test_nothing_is_told_of_two_that_are_the_same() -> None:
    g = torch.randn(1, 60, 3, generator=torch.Generator().manual_seed(0)) * 0.3 + 1
    found = overtakes(moments_of(g.expand(2, -1, -1), names=["K=1", "K=4"]), "K=1", "K=4")
    assert (found.value, found.low, found.high) == (math.inf, 0, math.inf)


def test_a_target_that_is_not_resolved() -> None:
    g = torch.randn(2, 40, 3, generator=torch.Generator().manual_seed(1))
    found = overtakes(moments_of(g - g.mean(dim=1, keepdim=True), names=["K=1", "K=4"]), "K=1", "K=4")
    assert all(math.isnan(x) for x in (found.value, found.low, found.high)) and found.n == 40


@pytest.mark.parametrize(
    ("line", "spread", "expected"),
    [
        ((1.0, -5.0), 0.01, (5.0, "near", "near")),
        ((1.0, 5.0), 0.01, (0.0, 0.0, 0.0)),
        ((-1.0, 5.0), 0.01, (math.inf, math.inf, math.inf)),
        ((-1.0, -5.0), 0.01, (math.inf, math.inf, math.inf)),
        ((0.1, -5.0), 0.5, (50.0, "least", math.inf)),
        ((-0.1, -5.0), 0.5, (math.inf, "least", math.inf)),
        ((0.1, 5.0), 0.5, (0.0, 0.0, math.inf)),
        ((-0.1, 5.0), 0.5, (math.inf, 0.0, math.inf)),
        ((0.1, -0.1), 0.5, (1.0, 0.0, math.inf)),
        ((1.0, -0.1), 0.2, (0.1, 0.0, "near")),
    ],
)
def test_all_cases_of_a_line(line: tuple[float, float], spread: float, expected: tuple[Any, ...]) -> None:
    """Twelve rows whose means have standard errors of ``spread`` and no covariance: t of 11 is 2.2."""
    signs = torch.cat([SIGNS[:, :2]] * 3).numpy()
    found = crossing(np.array(line) + signs * spread * math.sqrt(11))
    reach = 2.2 * spread
    least = (5 - reach) / (0.1 * math.copysign(1, line[0]) + reach)  # about: the ellipse is not its box
    assert found.value == pytest.approx(expected[0])
    for end, told in ((found.low, expected[1]), (found.high, expected[2])):
        if told == "near":
            assert abs(end - expected[0]) == pytest.approx(reach * math.hypot(1, expected[0]) / line[0], rel=0.4)
        elif told == "least":
            assert least < end < 8
        else:
            assert end == told


def test_one_seed_has_no_interval() -> None:
    found = crossing(np.array([[1.0, -5.0]]))
    assert found.value == 5 and not found.known
    assert math.isnan(crossing(np.array([[1.0, math.nan], [1.0, -5.0]])).value)


@pytest.mark.parametrize(
    ("names", "options", "match"),
    [
        (("K=1", "K=7"), {}, "'K=7' is none of the estimators measured, K=1, K=2, K=4, immediate"),
        (("nix", "K=1"), {}, "'nix' is none of the estimators measured"),
        (("K=2", "K=2"), {}, "estimator and other are both 'K=2'"),
        (("K=1", "K=2"), {"target": "score"}, "reference 'score' is none of the estimators"),
        (("K=1", "K=2"), {"rollouts_per_prompt": 0}, "rollouts_per_prompt must be at least 1; got 0"),
        (("K=1", "K=2"), {"rollouts_per_prompt": 2}, "variance within prompts needs"),
        (("K=1", "K=2"), {"confidence": 95}, "confidence must lie between 0 and 1; got 95"),
        (("K=1", "K=2"), {"group": "nix"}, "nix"),
    ],
)
def test_bad_options(names: tuple[str, str], options: dict[str, Any], match: str) -> None:
    with pytest.raises((ValueError, KeyError), match=match):
        overtakes(sample("three tokens", 20, 0), *names, **options)


def test_the_names_are_those_of_the_kernels() -> None:
    assert sample("three tokens", 4, 0).names == NAMES
