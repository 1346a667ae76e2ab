"""returns(): against the per-row reference, theory.md eqs. (2) to (4)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvar.returns import LLMR, Geometric, Immediate, KStep, TokenValues, lag_sums, returns
from tests.returns.returns_reference import KERNELS, Batch, batch, k_step, ks, lengths, one_step, seeds, terminals

CLOSE = {"rtol": 1e-12, "atol": 1e-11}


def rows(b: Batch):
    for i, n in enumerate(b.lengths):
        yield i, n, b.values.q[i, :n].tolist(), b.values.v[i, :n].tolist()


@given(lengths, seeds)
def test_finished_rows_follow_the_one_step_definition(lens, seed):
    b = batch(lens, seed)
    got = returns(b.values, b.mask, [LLMR()])[0]
    for i, n, q, v in rows(b):
        torch.testing.assert_close(got[i, :n], torch.tensor(one_step(q, v), dtype=torch.float64), **CLOSE)
        assert not got[i, n:].any()


@given(lengths, seeds, st.floats(-50, 50))
def test_cut_rows_are_bootstrapped_to_the_same_expression(lens, seed, tail):
    b = batch(lens, seed)
    got = returns(b.values, b.mask, [LLMR()])[0]
    for i, n, q, v in rows(b):
        torch.testing.assert_close(got[i, :n], torch.tensor(one_step(q, v, tail), dtype=torch.float64), **CLOSE)


@given(lengths, seeds, ks, terminals)
def test_k_step_bellman_recursion(lens, seed, k, terminal):
    b = batch(lens, seed)
    got = returns(b.values, b.mask, [KStep(k, terminal)])[0]
    for i, n, q, v in rows(b):
        torch.testing.assert_close(got[i, :n], torch.tensor(k_step(q, v, k, terminal), dtype=torch.float64), **CLOSE)


@given(lengths, seeds, ks, terminals)
def test_telescoped_identity(lens, seed, k, terminal):
    """(2) and (3): q_t minus the gaps of I_K(t), as the index sets are written."""
    b = batch(lens, seed)
    got = returns(b.values, b.mask, [KStep(k, terminal)])[0]
    for i, n, q, _ in rows(b):
        gap = b.values.gap[i].tolist()
        for t in range(n):
            index = set(range(t + k, n, k))
            if terminal == "anchored" and t < n - 1:
                index |= {n - 1}
            assert got[i, t].item() == pytest.approx(q[t] - sum(gap[j] for j in index), abs=1e-11)


def test_index_sets_of_one_row_by_hand():
    gap = torch.tensor([[1.0, 10.0, 100.0, 1000.0, 10000.0]])
    values = TokenValues(q=-gap, v=torch.zeros_like(gap))
    got = -returns(values, torch.ones(1, 5), [KStep(2), KStep(2, "free"), KStep(3), KStep(3, "free")])[:, 0]
    assert got.tolist() == [
        [10101.0, 11010.0, 10100.0, 11000.0, 10000.0],
        [10101.0, 1010.0, 10100.0, 1000.0, 10000.0],
        [11001.0, 10010.0, 10100.0, 11000.0, 10000.0],
        [1001.0, 10010.0, 100.0, 1000.0, 10000.0],
    ]


@given(lengths, seeds, st.sampled_from([torch.float32, torch.float64]), st.integers(0, 5))
def test_padded_row_equals_unpadded_row_exactly(lens, seed, dtype, extra):
    b = batch(lens, seed, width=max([0, *lens]) + extra, filler=float("nan"), dtype=dtype)
    for baseline in (None, "teacher-value"):
        got = returns(b.values, b.mask, KERNELS, baseline)
        for i, n in enumerate(lens):
            alone = TokenValues(b.values.q[i : i + 1, :n], b.values.v[i : i + 1, :n])
            assert torch.equal(got[:, i : i + 1, :n], returns(alone, torch.ones(1, n), KERNELS, baseline))
            assert not got[:, i, n:].any()


@given(lengths, seeds, st.integers(12, 40))
def test_k_beyond_the_response(lens, seed, k):
    """K >= T: anchored keeps the last token's gap only, free none."""
    b = batch(lens, seed)
    anchored, free = returns(b.values, b.mask, [KStep(k), KStep(k, "free")])
    for i, n in enumerate(lens):
        assert torch.equal(free[i, :n], returns(b.values, b.mask, [Immediate()])[0, i, :n])
        for t in range(n):
            rest = b.values.gap[i, n - 1] if t < n - 1 else 0.0
            torch.testing.assert_close(anchored[i, t], b.values.q[i, t] - rest, **CLOSE)


def test_no_circular_roll_of_v():
    """Absent here: shifting V by a circular roll, which wraps round when K >= T or when EOS is missing."""
    b = batch([4, 2], seed=3, width=4)
    kernels = [KStep(k, terminal) for k in (1, 2, 3, 4, 5, 9) for terminal in ("anchored", "free")]
    before = returns(b.values, b.mask, kernels)
    v = b.values.v.clone()
    v[:, 0] += 1000.0  # V_1 enters no return but through q_1, and q is unchanged
    torch.testing.assert_close(returns(TokenValues(b.values.q, v), b.mask, kernels), before, rtol=0, atol=1e-11)
    for k in (4, 5):  # what the roll gives instead
        rolled = b.values.q - torch.roll(b.values.v, -k, dims=1)
        assert not torch.allclose(rolled[0], returns(b.values, b.mask, [KStep(k, "free")])[0, 0])


def test_padding_states_are_never_read():
    """Absent here: padded rows that read the values of padding states."""
    clean, dirty = batch([5, 2, 0], seed=4), batch([5, 2, 0], seed=4, filler=1e30)
    for baseline in (None, "teacher-value", "batch-mean", "position-mean", "leave-one-out"):
        args = KERNELS, baseline, torch.tensor([0, 0, 1])
        assert torch.equal(returns(clean.values, clean.mask, *args), returns(dirty.values, dirty.mask, *args))


def test_llmr_is_k_step_one():
    assert LLMR() == KStep(1)
    b = batch([6, 3], seed=5)
    llmr, one, free, ones = returns(b.values, b.mask, [LLMR(), KStep(1), KStep(1, "free"), Geometric(1.0)])
    assert torch.equal(llmr, one)
    assert torch.equal(llmr, free)
    torch.testing.assert_close(llmr, ones, **CLOSE)


def test_one_token_responses():
    b = batch([1, 1], seed=6)
    got = returns(b.values, b.mask, KERNELS)
    torch.testing.assert_close(got, b.values.q.expand_as(got), **CLOSE)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0)])
@pytest.mark.parametrize("baseline", [None, "teacher-value", "batch-mean", "position-mean"])
def test_empty_batches(shape, baseline):
    values = TokenValues(torch.zeros(shape), torch.zeros(shape))
    assert returns(values, torch.zeros(shape, dtype=torch.bool), KERNELS, baseline).shape == (len(KERNELS), *shape)


def test_rows_without_tokens():
    b = batch([0, 3, 0], seed=7, filler=float("nan"))
    for baseline in (None, "teacher-value", "batch-mean", "position-mean", "leave-one-out"):
        got = returns(b.values, b.mask, KERNELS, baseline, torch.tensor([0, 0, 0]))
        assert got.isfinite().all()
        assert not got[:, [0, 2]].any()
    none = batch([0, 0], seed=7, width=3)
    assert not returns(none.values, none.mask, KERNELS, "batch-mean").any()


def test_no_kernels():
    b = batch([2], seed=8)
    assert returns(b.values, b.mask, []).shape == (0, 1, 2)


def test_teacher_value_drops_v():
    """A_t = -sum_j w_j gap_{t+j}, that is (4) without its V_t."""
    b = batch([6, 3], seed=9)
    got = returns(b.values, b.mask, KERNELS, baseline="teacher-value")
    assert torch.equal(got, lag_sums(-b.values.gap, b.mask, KERNELS))
    full = returns(b.values, b.mask, KERNELS)
    torch.testing.assert_close(full - got, b.values.v.expand_as(full), **CLOSE)


def test_gradients_flow_and_nothing_is_changed_in_place():
    b = batch([4, 2], seed=10, filler=float("nan"))
    q, v = b.values.q.clone().requires_grad_(), b.values.v.clone().requires_grad_()
    got = returns(TokenValues(q, v), b.mask, [LLMR()])
    got[0, 0, 0].backward()
    assert q.grad is not None
    assert v.grad is not None
    assert q.grad.tolist() == [[1.0, 1.0, 1.0, 1.0], [0.0] * 4]
    assert v.grad.tolist() == [[0.0, -1.0, -1.0, -1.0], [0.0] * 4]  # G_1 = q_1 + sum_{i>1} (q_i - V_i)
    for now, then in ((q, b.values.q), (v, b.values.v)):
        assert torch.equal(now.detach().nan_to_num(7.0), then.nan_to_num(7.0))


def test_mutating_a_result_leaves_the_values_alone():
    b = batch([3], seed=11)
    before = b.values.v.clone(), b.values.q.clone(), b.mask.clone()
    for kernel in KERNELS:
        for baseline in (None, "teacher-value"):
            returns(b.values, b.mask, [kernel], baseline).fill_(9.0)
    assert torch.equal(b.values.v, before[0])
    assert torch.equal(b.values.q, before[1])
    assert torch.equal(b.mask, before[2])


def test_errors():
    b = batch([3, 2], seed=12)
    with pytest.raises(ValueError, match=r"mask must have the values' shape"):
        returns(b.values, b.mask[:, :2], [LLMR()])
    with pytest.raises(ValueError, match=r"mask row 1 has a hole"):
        returns(b.values, torch.tensor([[1, 1, 1], [1, 0, 1]]), [LLMR()])
    with pytest.raises(ValueError, match=r"baseline='median' is unknown; .*batch-mean"):
        returns(b.values, b.mask, [LLMR()], baseline="median")
    with pytest.raises(TypeError, match=r"baseline must be None, a name or a callable; got 3"):
        returns(b.values, b.mask, [LLMR()], baseline=3)
    with pytest.raises(ValueError, match=r"needs prompt_index"):
        returns(b.values, b.mask, [LLMR()], baseline="leave-one-out")
    with pytest.raises(ValueError, match=r"baseline's result must broadcast .* got \(7,\)"):
        returns(b.values, b.mask, [LLMR()], baseline=lambda full, mask: torch.zeros(7))
    with pytest.raises(TypeError, match=r"kernels must be a list"):
        returns(b.values, b.mask, LLMR())
    with pytest.raises(TypeError, match=r"kernels\[1\] must be a kernel.*parse_kernel"):
        returns(b.values, b.mask, [LLMR(), 4])
    with pytest.raises(TypeError, match=r"kernels\[0\] must be a kernel"):
        returns(b.values, b.mask, [Immediate])
