"""Baselines: their values, and what each does to E[g], by enumeration of every batch."""

from __future__ import annotations

import itertools

import pytest
import torch

from kvar.returns import (
    Immediate,
    KStep,
    TokenValues,
    batch_mean,
    leave_one_out,
    minimum_variance,
    position_mean,
    returns,
    teacher_value,
)
from tests.returns.returns_reference import KERNELS, batch

PROMPTS = torch.tensor([0, 1, 0, 0, 1])


def full_batch():
    b = batch([5, 3, 2, 5, 0], seed=1)
    return b, returns(b.values, b.mask, KERNELS)


def test_batch_mean_centres_each_kernel():
    b, full = full_batch()
    assert batch_mean(full, b.mask).shape == (len(KERNELS), 1, 1)
    for e in range(len(KERNELS)):
        torch.testing.assert_close(batch_mean(full, b.mask)[e, 0, 0], full[e][b.mask].mean())
    got = returns(b.values, b.mask, KERNELS, "batch-mean")
    torch.testing.assert_close(got.sum(dim=(1, 2)), torch.zeros(len(KERNELS), dtype=got.dtype))
    assert not got[:, ~b.mask].any()


def test_position_mean_centres_each_position():
    b, full = full_batch()
    got = returns(b.values, b.mask, KERNELS, "position-mean")
    for t in range(5):
        rows = b.mask[:, t]
        torch.testing.assert_close(position_mean(full, b.mask)[:, 0, t], full[:, rows, t].mean(dim=1))
        torch.testing.assert_close(got[:, rows, t].sum(dim=1), torch.zeros(len(KERNELS), dtype=got.dtype))


def test_leave_one_out_by_hand():
    b, full = full_batch()
    got = leave_one_out(full, b.mask, PROMPTS)
    torch.testing.assert_close(got[:, 0, 1], (full[:, 2, 1] + full[:, 3, 1]) / 2)
    torch.testing.assert_close(got[:, 0, 4], full[:, 3, 4])  # row 2 has no fifth token
    torch.testing.assert_close(got[:, 2, 0], (full[:, 0, 0] + full[:, 3, 0]) / 2)
    assert not got[:, 1].any()  # its only companion, row 4, is empty
    torch.testing.assert_close(returns(b.values, b.mask, KERNELS, "leave-one-out", PROMPTS), (full - got) * b.mask)
    torch.testing.assert_close(leave_one_out(full, b.mask, PROMPTS * -7 + 3), got)  # any labels will do


def test_leave_one_out_beyond_the_others_ends():
    b = batch([4, 2], seed=2)
    full = returns(b.values, b.mask, [KStep(1)])
    got = leave_one_out(full, b.mask, torch.tensor([5, 5]))
    torch.testing.assert_close(got[0, 0, 2:], full[0, 1, :2].mean().expand(2))


def test_minimum_variance_minimises_the_weighted_square():
    b, full = full_batch()
    power = torch.rand(b.mask.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    dirty = power.masked_fill(~b.mask, float("nan"))
    best = minimum_variance(full, dirty, b.mask)
    for e in range(len(KERNELS)):
        torch.testing.assert_close(best[e], (full[e] * power)[b.mask].sum() / power[b.mask].sum())

        def loss(shift, e=e):
            return (((full[e] - shift) ** 2) * power)[b.mask].sum()

        assert loss(best[e]) < min(loss(best[e] + 0.01), loss(best[e] - 0.01))


def test_minimum_variance_is_not_the_mean():
    """Absent here: the reference's "minimum variance" baseline, which equals the mean baseline."""
    full, mask = torch.tensor([[[1.0, 2.0, 6.0]]]), torch.ones(1, 3)
    assert minimum_variance(full, torch.tensor([[1.0, 0.0, 3.0]]), mask).item() == pytest.approx(19 / 4)
    assert batch_mean(full, mask).item() == pytest.approx(3.0)
    assert minimum_variance(full, torch.zeros(1, 3), mask).item() == 0.0


def test_callable_baseline():
    b, full = full_batch()
    got = returns(b.values, b.mask, KERNELS, lambda g, mask: torch.full_like(g[:, :1, :1], 2.5))
    torch.testing.assert_close(got, (full - 2.5) * b.mask)
    torch.testing.assert_close(
        returns(b.values, b.mask, KERNELS, lambda g, mask: teacher_value(b.values)),
        returns(b.values, b.mask, KERNELS, "teacher-value"),
    )


def test_errors():
    b, full = full_batch()
    with pytest.raises(ValueError, match=r"every prompt here has one"):
        returns(b.values, b.mask, KERNELS, "leave-one-out", torch.arange(5))
    with pytest.raises(ValueError, match=r"prompt_index must have shape \(N,\) = \(5,\); got \(4,\)"):
        leave_one_out(full, b.mask, PROMPTS[:4])
    with pytest.raises(ValueError, match=r"sq_score_norm must have shape \(N, T\) = \(5, 5\); got \(5, 4\)"):
        minimum_variance(full, torch.zeros(5, 4), b.mask)
    with pytest.raises(ValueError, match=r"returns must have shape \(E, N, T\)"):
        batch_mean(full[0], b.mask)


class Enumerated:
    """Two tokens, 0 = EOS; responses of at most two tokens: 0, 10, 11. One tabular policy, all batches."""

    responses = ((0,), (1, 0), (1, 1))

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(11)
        self.logits = torch.randn(2, 2, generator=generator, dtype=torch.float64)  # states: start, after a 1
        self.teacher = 3 * torch.randn(2, 2, generator=generator, dtype=torch.float64)
        self.log_policy = self.logits.log_softmax(-1)

    def probability(self, response):
        return float(sum(self.log_policy[t, y] for t, y in enumerate(response)).exp())

    def mean_gradient(self, n: int, kernel, baseline) -> torch.Tensor:
        """E[(1/N) sum_i sum_t A_t s_t], (2, 2): exact, over all batches of n independent rollouts."""
        total = torch.zeros(2, 2, dtype=torch.float64)
        for rows in itertools.product(self.responses, repeat=n):
            weight = torch.tensor([self.probability(r) for r in rows], dtype=torch.float64).prod()
            tokens = torch.tensor([[*r, 0][:2] for r in rows])
            mask = torch.tensor([[True, len(r) == 2] for r in rows])
            f = self.teacher[torch.arange(2), :].expand(n, 2, 2)
            q = f.gather(2, tokens[..., None])[..., 0] * mask
            values = TokenValues(q, f.amax(-1) * mask)
            advantage = returns(values, mask, [kernel], baseline, torch.zeros(n, dtype=torch.long))[0]
            score = torch.nn.functional.one_hot(tokens, 2) - self.log_policy.exp()
            total += weight * (advantage[..., None] * score).sum(0) / n
        return total


@pytest.fixture(scope="module")
def enumerated() -> Enumerated:
    return Enumerated()


@pytest.mark.parametrize("kernel", [KStep(1), KStep(2, "free"), Immediate()], ids=lambda k: k.name)
@pytest.mark.parametrize("baseline", ["teacher-value", "leave-one-out"])
def test_unbiased_baselines_leave_the_mean(enumerated, kernel, baseline):
    plain = enumerated.mean_gradient(3, kernel, None)
    assert plain.abs().max() > 0.01
    torch.testing.assert_close(enumerated.mean_gradient(3, kernel, baseline), plain, rtol=0, atol=1e-14)
    torch.testing.assert_close(enumerated.mean_gradient(1, kernel, None), plain, rtol=0, atol=1e-14)


@pytest.mark.parametrize("baseline", ["batch-mean", "position-mean"])
def test_bias_of_the_means_falls_with_n(enumerated, baseline):
    plain = enumerated.mean_gradient(1, KStep(1), None)
    bias = [(enumerated.mean_gradient(n, KStep(1), baseline) - plain).norm().item() for n in (2, 4, 6)]
    assert bias[0] > bias[1] > bias[2] > 1e-3
    assert bias[2] < 0.6 * bias[0]


def test_position_mean_shrinks_by_one_over_n(enumerated):
    plain = enumerated.mean_gradient(1, KStep(1), None)[0]  # every row has a first token: n_1 = N
    for n in (1, 2, 3, 5):
        got = enumerated.mean_gradient(n, KStep(1), "position-mean")[0]
        torch.testing.assert_close(got, (1 - 1 / n) * plain, rtol=0, atol=1e-14)
