"""Statistics against sums over distinct pairs and jackknives formed by really leaving units out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from kvar.analysis import (
    Estimate,
    best_k,
    bias,
    cosine,
    decompose,
    difference_to,
    efficiency,
    mse,
    noise_scale,
    ratio_to,
    signal,
    snr,
    summarise,
    trace_covariance,
    within_share,
)
from kvar.analysis.exact import TokenMDP, moments_of
from kvar.analysis.frames.summary import STATISTICS
from kvar.gradients import GradientMoments, gradient_moments
from kvar.intervals import candidates, probability_of_best
from kvar.returns import Geometric, Immediate, KStep, returns

E, N, P = 3, 24, 5
BALANCED = torch.arange(6).repeat_interleave(4)
UNEVEN = torch.tensor([0] * 5 + [1] * 9 + [2] + [3] * 2 + [4] * 7)


def table(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(E, N, P, generator=generator, dtype=torch.float64) + torch.arange(1.0, E + 1)[:, None, None] / 3


def norms_only(moments: GradientMoments) -> GradientMoments:
    from kvar.gradients import GroupMoments

    full = moments["all"]
    return GradientMoments(moments.names, {"all": GroupMoments(full.sq_norm, full.mean_pair)}, moments.prompt_index)


def distinct(g: Tensor, h: Tensor) -> float:
    """Mean of <g_i, h_j> over i != j."""
    gram = g @ h.T
    return float((gram.sum() - gram.trace()) / (len(g) * (len(g) - 1)))


def test_values_are_sums_over_distinct_trajectories() -> None:
    g = table()
    m = moments_of(g)
    s = np.array([[distinct(a, b) for b in g] for a in g])
    cov = np.array([float(torch.cov(a.T).trace()) for a in g])
    d = np.array([distinct(a - g[0], a - g[0]) for a in g])
    np.testing.assert_allclose(trace_covariance(m).value, cov, rtol=1e-12)
    np.testing.assert_allclose(signal(m).value, np.diag(s), rtol=1e-12)
    np.testing.assert_allclose(snr(m, batch=10).value, np.diag(s) / (cov / 10), rtol=1e-12)
    np.testing.assert_allclose(snr(m).value, np.diag(s) / (cov / N), rtol=1e-12)
    np.testing.assert_allclose(noise_scale(m).value, cov / np.diag(s), rtol=1e-12)
    np.testing.assert_allclose(bias(m).value, d, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(bias(m, norm=True).value, np.sign(d) * np.sqrt(abs(d)), rtol=1e-10, atol=1e-6)
    np.testing.assert_allclose(mse(m, prompts=7).value, d + cov / 7, rtol=1e-10)
    np.testing.assert_allclose(cosine(m, batch=9).value, np.diag(s) / (np.diag(s) + cov / 9), rtol=1e-12)
    power = np.diag(s) + cov / 9
    np.testing.assert_allclose(cosine(m, batch=9, reference=1).value, s[:, 1] / np.sqrt(power * power[1]), rtol=1e-12)
    plain = s[:, 0] ** 2 / (power * s[0, 0])
    found = efficiency(m, batch=9)
    replicates = np.asarray(found.replicates)
    np.testing.assert_allclose(found.value, N * plain - (N - 1) * replicates.mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(ratio_to(m, signal, reference=2).value, np.diag(s) / s[2, 2], rtol=1e-12)
    np.testing.assert_allclose(difference_to(m, signal, reference="2").value, np.diag(s) - s[2, 2], rtol=1e-12)


STATISTIC_CALLS: dict[str, Callable[..., Estimate]] = {
    "trace": trace_covariance,
    "signal": signal,
    "snr": lambda m, **o: snr(m, batch=10, **o),
    "noise_scale": noise_scale,
    "bias": bias,
    "cosine": lambda m, **o: cosine(m, batch=10, reference=1, **o),
    "mse": lambda m, **o: mse(m, prompts=10, **o),
    "ratio": lambda m, **o: ratio_to(m, trace_covariance, **o),
    "difference": lambda m, **o: difference_to(m, trace_covariance, **o),
}


@pytest.mark.parametrize("name", STATISTIC_CALLS)
@pytest.mark.parametrize("unit", ["trajectory", "prompt", None])
@pytest.mark.parametrize("index", [BALANCED, UNEVEN], ids=["balanced", "uneven"])
def test_replicates_equal_measuring_without_a_unit(name: str, unit: str | None, index: Tensor) -> None:
    """(13): the delete-one algebra equals forming the moments again from the gradients that are left."""
    g, statistic = table(), STATISTIC_CALLS[name]
    found = statistic(moments_of(g, index), unit=unit)
    by_prompt = unit == "prompt" or (unit is None and index is BALANCED)
    groups = [index == p for p in index.unique()] if by_prompt else [torch.arange(N) == i for i in range(N)]
    assert found.n == len(groups)
    assert found.replicates is not None
    for row, gone in zip(found.replicates, groups, strict=True):
        rule = "prompt" if unit == "prompt" else "trajectory"
        again = statistic(moments_of(g[:, ~gone], index[~gone]), unit=rule)
        np.testing.assert_allclose(row, again.value, rtol=1e-9, atol=1e-11)


def test_efficiency_replicates_equal_measuring_without_a_unit() -> None:
    g = table()
    found = efficiency(moments_of(g), batch=9)
    for i, row in enumerate(np.asarray(found.replicates)):
        left = g[:, torch.arange(N) != i]
        s = np.array([[distinct(a, b) for b in left] for a in left])
        cov = np.array([float(torch.cov(a.T).trace()) for a in left])
        np.testing.assert_allclose(row, s[:, 0] ** 2 / ((np.diag(s) + cov / 9) * s[0, 0]), rtol=1e-9)


def test_prompt_clusters_count_pairs_of_distinct_prompts() -> None:
    g = table()
    same = UNEVEN[:, None] == UNEVEN
    s = np.array([float((a @ a.T)[~same].mean()) for a in g])
    m = moments_of(g, UNEVEN)
    np.testing.assert_allclose(signal(m, unit="prompt").value, s, rtol=1e-10)
    whole = (g**2).sum(2).mean(1).numpy() - s
    np.testing.assert_allclose(trace_covariance(m, unit="prompt").value, whole, rtol=1e-10)


@pytest.mark.parametrize("unit", [None, "prompt"])
@pytest.mark.parametrize("index", [BALANCED, UNEVEN], ids=["balanced", "uneven"])
def test_parts_add_up_to_the_whole(unit: str | None, index: Tensor) -> None:
    """(9)."""
    g = table()
    m = moments_of(g, index)
    parts = decompose(m, unit=unit)
    np.testing.assert_allclose(
        parts.within.value + parts.between.value, trace_covariance(m, unit=unit).value, rtol=1e-13
    )
    np.testing.assert_allclose(
        within_share(m, unit=unit).value, parts.within.value / trace_covariance(m, unit=unit).value
    )
    rows = [g[:, index == p] for p in index.unique() if int((index == p).sum()) > 1]
    weight = np.array([r.shape[1] for r in rows], dtype=float)
    each = np.array([[float(torch.cov(a.T).trace()) for a in r] for r in rows])
    np.testing.assert_allclose(parts.within.value, weight @ each / weight.sum(), rtol=1e-11)
    again = decompose(m, prompt_index=index * 3 + 1, unit=unit)  # other numbers, the same grouping
    np.testing.assert_array_equal(again.within.value, parts.within.value)
    step = parts.between.value / 10 + parts.within.value / 40
    np.testing.assert_allclose(mse(m, 10, 4, unit=unit).value, bias(m, unit=unit).value + step, rtol=1e-10)


def test_equal_trajectories_have_no_variance_and_give_no_warnings() -> None:
    m = moments_of(torch.ones(2, 6, 3), torch.arange(3).repeat_interleave(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = trace_covariance(m)
        assert whole.value.tolist() == whole.low.tolist() == whole.high.tolist() == [0.0, 0.0]
        assert decompose(m).within.value.tolist() == [0.0, 0.0]
        np.testing.assert_allclose(signal(m).value, 3.0)
        snr(m), noise_scale(m), summarise(m), best_k(m, 4, 2)
        summarise(moments_of(torch.zeros(2, 6, 3)))


def test_norms_alone_give_values_without_intervals() -> None:
    g = table()
    full, norms = moments_of(g), norms_only(moments_of(g))
    for statistic in (trace_covariance, signal, snr, noise_scale, cosine):
        found = statistic(norms)
        np.testing.assert_allclose(found.value, statistic(full).value, rtol=1e-12)
        assert np.isnan(found.low).all() and np.isnan(found.high).all()
    for statistic in (bias, mse, efficiency):
        with pytest.raises(ValueError, match="fields='all'"):
            statistic(norms)
    with pytest.raises(ValueError, match="fields='all'"):
        decompose(norms_only(moments_of(g, BALANCED)))
    rows = summarise(norms)
    assert rows[rows.statistic == "trace"].value.notna().all() and rows[rows.statistic == "bias_sq"].value.isna().all()


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda g: trace_covariance(moments_of(g[:, :1])), "at least two trajectories"),
        (lambda g: decompose(moments_of(g, torch.zeros(N))), "one prompt says nothing"),
        (lambda g: decompose(moments_of(g)), "two rollouts or more"),
        (lambda g: decompose(moments_of(g, BALANCED), prompt_index=UNEVEN), "groups the trajectories otherwise"),
        (lambda g: decompose(moments_of(g, BALANCED), unit="trajectory"), "leave unit None"),
        (lambda g: signal(moments_of(g, BALANCED % 2), unit="prompt"), "at least three prompts.*there are 2"),
        (lambda g: signal(moments_of(g), unit="token"), "unit must be"),
        (lambda g: signal(moments_of(g), confidence=95), "confidence must lie between 0 and 1; got 95"),
        (lambda g: bias(moments_of(g), reference="K=1"), "reference 'K=1' is none of the estimators 0, 1, 2"),
        (lambda g: bias(moments_of(g), reference=3), "reference 3"),
        (lambda g: mse(moments_of(g), prompts=0), "prompts must be at least 1"),
        (lambda g: mse(moments_of(g), prompts=4, rollouts_per_prompt=2), "two rollouts or more"),
        (lambda g: snr(moments_of(g), batch=-1), "batch must be a positive number"),
        (lambda g: summarise(moments_of(g), values=object()), "values came without mask"),
    ],
)
def test_what_cannot_be_said_is_refused(call: Callable[[Tensor], object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call(table())


def test_the_reference_is_k1_wherever_it_stands() -> None:
    g = table()
    m = moments_of(g, names=["immediate", "K=1", "K=2"])
    assert bias(m).value[1] == 0.0 and bias(m).value[0] != 0.0
    assert ratio_to(m, trace_covariance).value[1] == 1.0
    assert bias(m, reference="K=2").value[2] == 0.0


def test_efficiency_is_unresolved_where_the_reference_has_no_signal() -> None:
    g = table()
    g[0] -= g[0].mean(dim=0)
    found = efficiency(moments_of(g), batch=9)
    assert np.isnan(found.value).all() and (found.low == -1).all() and (found.high == 1).all()
    assert best_k(moments_of(g), 9).attrs["best_efficiency"] is None


def test_estimates_can_be_indexed() -> None:
    found = signal(moments_of(table()))
    assert found[1].value == found.value[1] and found[1].replicates.shape == (N,)


def test_probability_of_best_follows_the_noise() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2)) + np.array([0.0, 0.07])  # means with standard error 0.05
    stacked = np.concatenate([x.mean(0)[None], (x.sum(0) - x) / 399])
    found = probability_of_best(stacked, smallest=True)
    difference = (x[:, 1] - x[:, 0]).mean() / (x[:, 1] - x[:, 0]).std(ddof=1) * 20
    assert found.sum() == pytest.approx(1.0)
    assert found[0] == pytest.approx(0.5 * (1 + math.erf(difference / math.sqrt(2))), abs=0.03)
    assert probability_of_best(np.ones((5, 2)), smallest=True).tolist() == [0.5, 0.5]  # ties are shared
    unknown = np.array([[np.nan, 2.0, 1.0]] * 3)
    np.testing.assert_array_equal(probability_of_best(unknown, smallest=True), [np.nan, 0.0, 1.0])
    assert np.isnan(probability_of_best(unknown[:, :1], smallest=True)).all()
    assert candidates({"a": math.nan, "b": 0.0, "c": 1.0}) == {"c": 1.0} and candidates({"a": math.nan}) == {}


def test_no_probability_is_given_where_the_direction_is_not_resolved() -> None:
    """|g*|^2 of (1, -1, 0.5, -0.5) is -2.5/12: a gradient of zero has the smallest error, and no direction."""
    g = torch.tensor([[1.0, -1.0, 0.5, -0.5], [0.0] * 4], dtype=torch.float64)[:, :, None]
    lost = best_k(moments_of(g, names=["K=1", "nothing"]), 4)
    np.testing.assert_allclose(lost["mse"], [(2.5 / 3) / 4, -2.5 / 12])
    assert lost[["mse_best", "efficiency_best"]].isna().all(axis=None) and lost.attrs["candidates_mse"] == {}
    assert lost.attrs["best_mse"] is None and math.isnan(lost.attrs["units_mse"])
    told = best_k(moments_of(g + torch.tensor([5.0, 0.0])[:, None, None], names=["K=1", "nothing"]), 4)
    assert told.attrs["best_mse"] == "K=1" and told["mse_best"].tolist() == [1.0, 0.0]
    assert math.isnan(told["efficiency_best"][1]) and told.attrs["best_efficiency"] == "K=1"  # zero has no direction


def test_best_k_and_summary_tables() -> None:
    mdp = TokenMDP(3, 5, seed=1, prompts=5, state="last-token")
    rollouts, values = mdp.sample(60, seed=0)
    kernels = [KStep(1), KStep(2), Geometric(0.5), Immediate()]
    names = [k.name for k in kernels]
    moments = gradient_moments(
        mdp.student, rollouts, returns(values, rollouts.mask, kernels), names=names, engine="loop", score_power=True
    )
    best = best_k(moments, prompts=16, rollouts_per_prompt=4)
    assert best.kernel.tolist() == names
    np.testing.assert_allclose(best.mse, mse(moments, 16, 4).value)
    np.testing.assert_allclose(best.efficiency, efficiency(moments, batch=64, rollouts_per_prompt=4).value)
    assert best.mse_best.sum() == pytest.approx(1) and best.efficiency_best.sum() == pytest.approx(1)
    for name in ("mse", "efficiency"):
        left, likeliest = best.attrs[f"candidates_{name}"], names[int(best[f"{name}_best"].argmax())]
        assert next(iter(left)) == likeliest and sum(left.values()) >= 0.95
        assert best.attrs[f"best_{name}"] == (likeliest if len(left) == 1 else None)
    rows = summarise(moments, values=values, mask=rollouts.mask)
    assert list(rows.columns) == ["kernel", "k", "statistic", "value", "low", "high", "n"]
    assert set(rows.statistic) == set(STATISTICS) and len(rows) == len(STATISTICS) * len(kernels)
    assert rows.k[:4].tolist()[:2] == [1.0, 2.0] and math.isnan(rows.k[2]) and rows.k[3] == math.inf
    for statistic, found in {
        "trace": trace_covariance(moments),
        "trace_ratio": ratio_to(moments, trace_covariance),
        "bias_sq": bias(moments),
        "efficiency": efficiency(moments, batch=64),
        "mse": mse(moments, prompts=64),
        "within": decompose(moments).within,
    }.items():
        own = rows[rows.statistic == statistic]
        np.testing.assert_allclose(own.value, found.value)
        np.testing.assert_allclose(own.low, found.low)
        np.testing.assert_allclose(own.high, found.high)
        assert (own.n == found.n).all()
