"""lag_sums(): eq. (4') for any per-token reward."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvar.returns import Geometric, Immediate, KStep, LagKernel, lag_sums, returns
from tests.returns.returns_reference import KERNELS, batch, ks, lengths, seeds, terminals, weighted


def rewards_of(lens: list[int], seed: int, dtype=torch.float64, filler: float = float("nan")):
    generator = torch.Generator().manual_seed(seed)
    width = max([1, *lens])
    mask = torch.arange(width) < torch.tensor(lens, dtype=torch.long)[:, None]
    u = torch.randn(len(lens), width, generator=generator, dtype=dtype)  # of both signs, unlike gaps
    return u.masked_fill(~mask, filler), mask


@given(lengths, seeds)
def test_any_reward_matches_the_definition(lens, seed):
    u, mask = rewards_of(lens, seed)
    got = lag_sums(u, mask, KERNELS)
    assert got.shape == (len(KERNELS), *u.shape)
    for e, kernel in enumerate(KERNELS):
        for i, n in enumerate(lens):
            expected = torch.tensor(weighted(u[i, :n].tolist(), kernel), dtype=torch.float64)
            torch.testing.assert_close(got[e, i, :n], expected, rtol=1e-12, atol=1e-12)
            assert not got[e, i, n:].any()


@given(lengths, seeds, ks, terminals)
def test_k_step_index_sets_hold_for_rewards(lens, seed, k, terminal):
    u, mask = rewards_of(lens, seed)
    got = lag_sums(u, mask, [KStep(k, terminal)])[0]
    for i, n in enumerate(lens):
        for t in range(n):
            index = set(range(t, n, k)) | ({n - 1} if terminal == "anchored" else set())
            assert got[i, t].item() == pytest.approx(sum(u[i, j].item() for j in index), abs=1e-12)


@given(lengths, seeds, st.floats(0, 1))
def test_geometric_is_a_discounted_return(lens, seed, lam):
    u, mask = rewards_of(lens, seed)
    got = lag_sums(u, mask, [Geometric(lam)])[0]
    for i, n in enumerate(lens):
        running = 0.0
        for t in reversed(range(n)):
            running = u[i, t].item() + lam * running
            assert got[i, t].item() == pytest.approx(running, abs=1e-12)


@given(lengths, seeds)
def test_a_callable_with_a_kernels_signature_gives_the_same_sums(lens, seed):
    u, mask = rewards_of(lens, seed)
    wrapped = [lambda lags, remaining, kernel=kernel: kernel(lags, remaining) for kernel in KERNELS]
    torch.testing.assert_close(lag_sums(u, mask, wrapped), lag_sums(u, mask, KERNELS), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_is_kept(dtype):
    u, mask = rewards_of([40, 17], 1, torch.float64)
    got = lag_sums(u.to(dtype), mask, KERNELS)
    assert got.dtype == dtype
    exact = lag_sums(u.to(dtype).double(), mask, KERNELS)  # half precision is rounded once, at the end
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(got.double(), exact, rtol=eps, atol=min(40 * eps, 1e-5))


def test_half_precision_is_summed_in_float32():
    ones, mask = torch.ones(1, 512, dtype=torch.bfloat16), torch.ones(1, 512)
    got = lag_sums(ones, mask, [KStep(1), Geometric(1.0), LagKernel([1] * 512)])
    assert got[:, 0, 0].tolist() == [512.0] * 3  # the last would stop at 256 in bfloat16


def test_integer_rewards_become_floats():
    got = lag_sums(torch.tensor([[1, 2, 3]]), torch.ones(1, 3), [KStep(1), Geometric(0.5)])
    assert got.tolist() == [[[6.0, 5.0, 3.0]], [[2.75, 3.5, 3.0]]]


def test_gaps_are_the_special_case():
    b = batch([5, 3], seed=2)
    shifted = returns(b.values, b.mask, KERNELS) - b.values.v
    torch.testing.assert_close(shifted, lag_sums(-b.values.gap, b.mask, KERNELS), rtol=1e-12, atol=1e-12)


def test_kernels_are_evaluated_in_the_order_given():
    u, mask = rewards_of([6], 3)
    forwards, backwards = lag_sums(u, mask, KERNELS), lag_sums(u, mask, KERNELS[::-1])
    assert torch.equal(forwards, backwards.flip(0))


def test_every_kernel_passes_gradcheck():
    u, mask = rewards_of([5, 2, 0], 4, filler=0.0)
    assert torch.autograd.gradcheck(lambda x: lag_sums(x, mask, KERNELS), u.requires_grad_())


def test_rewards_are_left_alone():
    u, mask = rewards_of([4, 1], 5)
    before = u.clone()
    for kernel in KERNELS:
        lag_sums(u, mask, [kernel]).fill_(3.0)
    assert torch.equal(u.nan_to_num(7.0), before.nan_to_num(7.0))


def test_long_rows_with_many_kernels():
    u, mask = rewards_of([513, 512, 1], 6)
    got = lag_sums(u, mask, [KStep(8), Geometric(0.99), Immediate(), LagKernel([1] * 600)])
    index = sorted(set(range(0, 513, 8)) | {512})
    torch.testing.assert_close(got[0, 0, 0], u[0, index].sum(), rtol=1e-11, atol=1e-11)
    powers = 0.99 ** torch.arange(513, dtype=torch.float64)
    torch.testing.assert_close(got[1, 0, 0], (u[0] * powers).sum(), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(got[3, 0, 0], u[0].sum(), rtol=1e-11, atol=1e-11)


def test_errors():
    with pytest.raises(ValueError, match=r"rewards must have the mask's shape \(N, T\) = \(2, 4\); got \(2, 3\)"):
        lag_sums(torch.zeros(2, 3), torch.ones(2, 4), [KStep(1)])
    with pytest.raises(ValueError, match=r"mask row 0 has a hole"):
        lag_sums(torch.zeros(1, 3), torch.tensor([[0, 1, 1]]), [KStep(1)])
    with pytest.raises(ValueError, match=r"mask must hold only 0 and 1"):
        lag_sums(torch.zeros(1, 2), torch.tensor([[2, 1]]), [KStep(1)])
    with pytest.raises(TypeError, match=r"kernels must be a list"):
        lag_sums(torch.zeros(1, 2), torch.ones(1, 2), "K=4")
