"""The BCa bootstrap: its draws' sums against real resampling, and coverage."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from kvar.analysis.bca import bca, bootstrap_replicates
from kvar.analysis.bias import bias_of
from kvar.analysis.exact import TokenMDP, moments_of
from kvar.analysis.signal import signal_of
from kvar.analysis.step.design import within_of
from kvar.analysis.trace_covariance import trace_of
from kvar.analysis.unit_sums import unit_sums
from kvar.returns import Immediate, KStep

KERNELS = [KStep(1), KStep(3), Immediate()]


@cache
def gradients_of(mdp: TokenMDP) -> torch.Tensor:
    """(E, every response, P)."""
    return torch.stack([mdp.gradients(k) for k in KERNELS])


def drawn(mdp: TokenMDP, prompts: int, rollouts: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(E, N, P) gradients and (N,) numbers of the prompts drawn."""
    rng = np.random.default_rng(seed)
    per = mdp.probabilities.view(mdp.prompts, -1).numpy() * mdp.prompts
    prompt = np.repeat(rng.integers(mdp.prompts, size=prompts), rollouts)
    cell = (per.cumsum(axis=1)[prompt] < rng.random(len(prompt))[:, None]).sum(axis=1).clip(max=per.shape[1] - 1)
    rows = torch.as_tensor(prompt * per.shape[1] + cell)
    return gradients_of(mdp)[:, rows], torch.arange(prompts).repeat_interleave(rollouts)


@pytest.mark.parametrize("rollouts", [1, 3])
def test_draws_have_the_sums_of_real_resampling(rollouts: int) -> None:
    """Linear sums agree draw by draw; the sum over pairs of units agrees to its linear part, and in its mean."""
    g, index = drawn(TokenMDP(3, 4, seed=0, prompts=6, state="last-token"), 300, rollouts, 0)
    moments = moments_of(g, index)
    found = bootstrap_replicates(unit_sums(moments, "all", rollouts > 1), draws=200, seed=5)
    counts = np.random.default_rng(5).multinomial(300, np.full(300, 1 / 300), size=200)
    own = g.view(3, 300, rollouts, -1).sum(dim=2).numpy()  # by unit
    square = np.einsum("enp,fnp->nef", *(g.numpy(),) * 2).reshape(300, rollouts, 3, 3).sum(axis=1)
    np.testing.assert_allclose(found.square, np.einsum("bu,uef->bef", counts, square), rtol=1e-9)
    same = np.einsum("bu,uef->bef", counts**2, np.einsum("eup,fup->uef", own, own))
    np.testing.assert_allclose(found.same, same, rtol=1e-9)
    total = np.einsum("bu,eup->bep", counts, own)
    real = np.einsum("bep,bfp->bef", total, total)
    np.testing.assert_allclose(found.total.mean(axis=0), real.mean(axis=0), rtol=0.05)
    for e in range(3):
        assert np.corrcoef(found.total[:, e, e], real[:, e, e])[0, 1] > 0.9
    if rollouts > 1:
        assert within_of(found).shape == (200, 3)


@pytest.mark.parametrize("statistic", ["trace", "signal", "bias"])
def test_bca_intervals_cover(statistic: str) -> None:
    mdp = TokenMDP(4, 4, seed=1, state="last-token")
    exact = [mdp.exact(k) for k in KERNELS]
    form, truth = {
        "trace": (trace_of, [e.trace for e in exact]),
        "signal": (signal_of, [float(e.mean @ e.mean) for e in exact]),
        "bias": (lambda data: bias_of(data, 0), [float(e.bias @ e.bias) for e in exact]),
    }[statistic]
    hits, repeats = np.zeros(3), 300
    for seed in range(repeats):
        found = bca(moments_of(drawn(mdp, 256, 1, seed)[0]), form, draws=500)
        hits += (found.low <= np.array(truth) + 1e-12) & (np.array(truth) - 1e-12 <= found.high)
    share = hits[1:] / repeats if statistic == "bias" else hits / repeats
    assert ((share > 0.912) & (share < 0.988)).all(), share  # 3 standard errors at 300 repeats: 0.038


def test_prompts_are_drawn_whole() -> None:
    g, index = drawn(TokenMDP(3, 4, seed=0, prompts=6), 40, 3, 0)
    assert bca(moments_of(g, index), trace_of).n == 40
    assert bca(moments_of(g, index), trace_of, unit="trajectory").n == 120


def test_equal_trajectories_have_an_interval_of_no_width() -> None:
    found = bca(moments_of(torch.ones(1, 20, 3)), trace_of, draws=200)
    assert found.value[0] == pytest.approx(0.0, abs=1e-12)
    assert found.high[0] - found.low[0] == pytest.approx(0.0, abs=1e-12)


def test_bad_input_is_named() -> None:
    moments = moments_of(torch.randn(1, 9, 3, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(ValueError, match="confidence"):
        bca(moments, trace_of, confidence=95)
