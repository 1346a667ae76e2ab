"""The norm test and the inner-product test against exact moments; the SNR of a step of several rollouts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kvar.analysis import inner_product_test, noise_scale, norm_test, snr, summarise
from kvar.analysis.exact import TokenMDP, moments_of
from kvar.gradients import GradientMoments, GroupMoments
from kvar.returns import KStep


def made(n: int, seed: int = 0) -> tuple[GradientMoments, np.ndarray, np.ndarray]:
    """Moments of n trajectories; the exact ratios of both tests for B = 64."""
    mdp = TokenMDP(4, 4, seed=1, state="last-token")
    kernels = [KStep(1), KStep(2)]
    gradients = torch.stack([mdp.gradients(k) for k in kernels])
    rows = np.random.default_rng(seed).choice(len(mdp.probabilities), n, p=mdp.probabilities.numpy())
    p = mdp.probabilities
    norm, inner = [], []
    for g, kernel in zip(gradients, kernels, strict=True):
        exact = mdp.exact(kernel)
        along = g @ exact.mean
        square = float(exact.mean @ exact.mean)
        norm.append(exact.trace / 64 / square)
        inner.append(float((p * along**2).sum() - (p * along).sum() ** 2) / 64 / square**2)
    return moments_of(gradients[:, rows], names=["K=1", "K=2"]), np.array(norm), np.array(inner)


def test_both_match_the_enumerated_values() -> None:
    moments, norm, inner = made(40_000)
    found = norm_test(moments, batch=64), inner_product_test(moments, batch=64)
    for estimate, truth in zip(found, (norm, inner), strict=True):
        np.testing.assert_allclose(estimate.value, truth, rtol=0.06)
        assert ((estimate.low < truth) & (truth < estimate.high)).all()
    assert (found[1].value < found[0].value).all()


def test_the_batch_that_passes_is_the_noise_scale_over_theta_squared() -> None:
    moments, _, _ = made(500)
    batch = noise_scale(moments).value[0] / 0.9**2
    assert norm_test(moments, batch=batch).value[0] == pytest.approx(0.9**2)


def test_inner_product_intervals_cover() -> None:
    hits, repeats = np.zeros(2), 200
    for seed in range(repeats):
        moments, _, inner = made(1000, seed)
        found = inner_product_test(moments, batch=64)
        hits += (found.low <= inner) & (inner <= found.high)
    assert (hits / repeats > 0.90).all(), hits / repeats


def test_bad_input_is_named() -> None:
    moments, _, _ = made(50)
    norms = GradientMoments(
        moments.names, {"all": GroupMoments(moments.sq_norm, moments.mean_pair)}, moments.prompt_index
    )
    with pytest.raises(ValueError, match="fields='all'"):
        inner_product_test(norms, batch=64)
    for test in (norm_test, inner_product_test):
        with pytest.raises(ValueError, match="batch must be a positive"):
            test(moments, batch=0)


def test_the_snr_of_a_step_of_several_rollouts_splits_the_variance() -> None:
    """A step of 6 prompts x 4 rollouts has the noise (between + within / 4) / 6, each part formed by loops."""
    g = torch.randn(3, 24, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.7
    m, by_prompt = moments_of(g, torch.arange(6).repeat_interleave(4)), g.view(3, 6, 4, 5)
    means = by_prompt.mean(dim=2)
    within = ((by_prompt - means[:, :, None]) ** 2).sum(dim=(1, 2, 3)) / (6 * 3)
    spread = ((means - means.mean(dim=1, keepdim=True)) ** 2).sum(dim=(1, 2)) / 5  # between + within / 4
    signal_ = (means.mean(dim=1) ** 2).sum(dim=1) - spread / 6
    expected = (signal_ / (spread / 6)).numpy()
    found = snr(m, batch=24, unit="prompt", rollouts_per_prompt=4)
    np.testing.assert_allclose(found.value, expected, rtol=1e-9)
    frame = summarise(m, batch=24, unit="prompt", rollouts_per_prompt=4)
    for name, value in (("snr", expected), ("norm_test", 1 / expected)):
        np.testing.assert_allclose(frame.loc[frame["statistic"] == name, "value"], value, rtol=1e-9)
    one = (signal_ / ((spread - within / 4 + within) / 24)).numpy()
    np.testing.assert_allclose(snr(m, batch=24, unit="prompt").value, one, rtol=1e-9)
    assert not np.allclose(one, expected, rtol=0.05)
