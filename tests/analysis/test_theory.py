"""The predictions (15)-(17) where their assumptions hold by construction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from kvar.analysis import trace_covariance
from kvar.analysis.exact import moments_of
from kvar.analysis.theory import predict
from kvar.gradients import GradientMoments
from kvar.returns import Geometric, Immediate, KStep, TokenValues, lag_sums, returns

KERNELS = [KStep(1), KStep(2), KStep(4), KStep(3, "free"), Geometric(0.7), Immediate()]
N, T, P = 4000, 9, 40


def ragged(generator: torch.Generator) -> Tensor:
    return torch.arange(T) < torch.randint(3, T + 1, (N, 1), generator=generator)


def made(correlated: bool, seed: int = 0) -> tuple[TokenValues, Tensor]:
    """Values whose gaps are i.i.d., or a moving average that q_t foretells."""
    g = torch.Generator().manual_seed(seed)
    noise = torch.rand(N, T + 2, generator=g, dtype=torch.float64)
    gap = 2 * noise[:, 2:]
    if correlated:
        gap = noise[:, 2:] + 0.8 * noise[:, 1:-1] + 0.5 * noise[:, :-2]
    q = torch.randn(N, T, generator=g, dtype=torch.float64) + torch.arange(T) / 4  # a mean that moves with position
    if correlated:
        q = q + 1.5 * noise[:, 2:]
    mask = ragged(g)
    return TokenValues(q=q.masked_fill(~mask, 0), v=(q + gap).masked_fill(~mask, 0)), mask


def measured(values: TokenValues, mask: Tensor, baseline: str | None = None) -> tuple[GradientMoments, Tensor]:
    """Moments of sum_t G_t s_t with scores that are independent of everything."""
    g = torch.Generator().manual_seed(9)
    scores = torch.randn(N, T, P, generator=g, dtype=torch.float64) * mask[..., None]
    return moments_of(torch.einsum("ent,ntp->enp", returns(values, mask, KERNELS, baseline=baseline), scores)), scores


@pytest.mark.parametrize("baseline", [None, "teacher-value"])
def test_t0_holds_for_independent_gaps(baseline: str | None) -> None:
    values, mask = made(correlated=False)
    moments, scores = measured(values, mask, baseline)
    if baseline:  # q - V = -gap_t: one more gap of the same law
        values = TokenValues(q=-values.gap, v=torch.zeros_like(values.q))
    table = predict(values, mask, KERNELS, sq_score=scores.pow(2).sum(-1), moments=moments)
    np.testing.assert_allclose(table.trace / table.measured_trace, 1.0, atol=0.03)
    np.testing.assert_allclose(table.ratio / table.measured_ratio, 1.0, atol=0.03)
    np.testing.assert_allclose(table.measured_trace, trace_covariance(moments).value)
    assert ((table.low < table.measured_trace) & (table.measured_trace < table.high)).all()


def test_t1_holds_for_correlated_gaps_where_t0_fails() -> None:
    values, mask = made(correlated=True)
    moments, scores = measured(values, mask, None)
    power = scores.pow(2).sum(-1)
    t0, t1 = (predict(values, mask, KERNELS, level=level, sq_score=power, moments=moments) for level in ("T0", "T1"))
    error0, error1 = abs(t0.trace / t0.measured_trace - 1), abs(t1.trace / t1.measured_trace - 1)
    assert error1.max() < 0.03
    assert error0.max() > 2 * error1.max()


def test_the_law_of_returns_is_written_out() -> None:
    """(15) for responses of one length: Var G_t + (E G_t)^2 from m, mu, sigma^2 by hand."""
    values, _ = made(correlated=False)
    mask = torch.ones(N, T, dtype=torch.bool)
    gap = values.gap.numpy()
    q = values.q.numpy()
    total = 0.0
    for t in range(T):
        kept = [i for i in range(t + 1, T) if (i - t) % 4 == 0 or i == T - 1]  # anchored, K = 4
        m = len(kept)
        total += q[:, t].var() + m * gap.var() + (q[:, t].mean() - m * gap.mean()) ** 2
    found = predict(TokenValues(values.q, values.v), mask, [KStep(4)], sq_score=1.0)
    assert found.trace[0] == pytest.approx(total, rel=1e-9)
    by_trajectory = predict(TokenValues(values.q, values.v), mask, [KStep(4)], sq_score=torch.full((N,), float(T)))
    assert by_trajectory.trace[0] == pytest.approx(total, rel=1e-9)


def test_the_ratio_needs_no_scores_and_no_llmr_among_the_kernels() -> None:
    values, mask = made(correlated=False)
    alone = predict(values, mask, [KStep(4)])
    beside = predict(values, mask, [KStep(1), KStep(4)])
    assert alone.ratio[0] == pytest.approx(beside.ratio[1]) and beside.ratio[0] == 1.0
    assert float(lag_sums(values.gap, mask, [KStep(1)]).mean()) > 0


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"level": "T2"}, "'T0' or 'T1'"),
        ({"baseline": "batch-mean"}, "None or 'teacher-value'"),
        ({"mask": torch.zeros(N, T)}, "no token"),
        ({"sq_score": torch.ones(3)}, r"sq_score must be a number"),
        ({"moments": moments_of(torch.ones(1, 4, 2))}, "hold 1 estimators for 6 kernels"),
    ],
)
def test_bad_input_is_named(change: dict, match: str) -> None:
    values, mask = made(correlated=False)
    with pytest.raises(ValueError, match=match):
        predict(**({"values": values, "mask": mask, "kernels": KERNELS} | change))
