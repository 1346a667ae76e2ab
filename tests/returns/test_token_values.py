"""token_values(): theory.md eq. (1)."""

from __future__ import annotations

from math import exp, log1p

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvar.returns import TokenValues, token_values
from kvar.returns import values as values_module
from tests.returns.returns_reference import seeds

CENTRES = ["mean", "logsumexp", "none"]


def case(seed: int = 0, n: int = 4, t: int = 6, vocabulary: int = 11, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(n, t, vocabulary, generator=generator, dtype=torch.float64) * 4).to(dtype)
    tokens = torch.randint(vocabulary, (n, t), generator=generator)
    lens = torch.randint(0, t + 1, (n,), generator=generator)
    return logits, tokens, torch.arange(t) < lens[:, None]


@given(seeds, st.sampled_from(CENTRES), st.sampled_from(["max", "soft"]))
def test_definition(seed, centre, value):
    logits, tokens, mask = case(seed)
    got = token_values(logits, tokens, mask, centre, value)
    for i, t in mask.nonzero().tolist():
        f = logits[i, t]
        c = {"mean": f.sum() / len(f), "logsumexp": f.exp().sum().log(), "none": 0.0}[centre]
        q = f - c
        v = q.max() if value == "max" else (q.exp() / q.exp().sum() * q).sum()
        torch.testing.assert_close(got.q[i, t], q[tokens[i, t]], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(got.v[i, t], v, rtol=1e-12, atol=1e-12)
    assert not got.q[~mask].any()
    assert not got.v[~mask].any()
    assert not got.gap[~mask].any()


@given(seeds, st.sampled_from(["max", "soft"]), st.floats(-100, 100))
def test_gap_is_shift_invariant(seed, value, shift):
    """The gap depends neither on the centre nor on a constant added to a state's logits."""
    logits, tokens, mask = case(seed)
    gaps = [token_values(logits, tokens, mask, centre, value).gap for centre in CENTRES]
    gaps += [token_values(logits + shift, tokens, mask, centre, value).gap for centre in CENTRES]
    for gap in gaps[1:]:
        torch.testing.assert_close(gap, gaps[0], rtol=0, atol=1e-11)


@pytest.mark.parametrize("centre", ["mean", "logsumexp"])
def test_centred_values_do_not_depend_on_a_shift(centre):
    logits, tokens, mask = case(3)
    a, b = (token_values(x, tokens, mask, centre) for x in (logits, logits + 7.5))
    torch.testing.assert_close((a.q, a.v), (b.q, b.v), rtol=0, atol=1e-12)


@given(seeds, st.sampled_from([torch.float32, torch.float64, torch.bfloat16]), st.sampled_from(CENTRES))
def test_hard_gap_is_never_negative_and_zero_for_the_greedy_token(seed, dtype, centre):
    logits, tokens, mask = case(seed, dtype=dtype)
    assert (token_values(logits, tokens, mask, centre).gap >= 0).all()
    assert not token_values(logits, logits.argmax(-1), mask, centre).gap.any()


@given(
    seeds, st.sampled_from(CENTRES), st.sampled_from(["max", "soft"]), st.sampled_from([torch.float32, torch.float64])
)
def test_padded_row_equals_unpadded_row_exactly(seed, centre, value, dtype):
    logits, tokens, mask = case(seed, dtype=dtype)
    logits, tokens = logits.masked_fill(~mask[..., None], float("nan")), tokens.masked_fill(~mask, -100)
    got = token_values(logits, tokens, mask, centre, value)
    for i, n in enumerate(mask.sum(1).tolist()):
        row = slice(i, i + 1)
        alone = token_values(logits[row, :n], tokens[row, :n], torch.ones(1, n), centre, value)
        assert torch.equal(got.q[row, :n], alone.q)
        assert torch.equal(got.v[row, :n], alone.v)
        assert not got.q[i, n:].any()
        assert not got.v[i, n:].any()


@pytest.mark.parametrize(
    ("dtype", "out"),
    [(torch.float64,) * 2, (torch.float32,) * 2, (torch.bfloat16, torch.float32), (torch.float16, torch.float32)],
)
@pytest.mark.parametrize("centre", CENTRES)
@pytest.mark.parametrize("value", ["max", "soft"])
def test_precision(dtype, out, centre, value):
    logits, tokens, mask = case(5, vocabulary=2000, dtype=dtype)
    got = token_values(logits, tokens, mask, centre, value)
    exact = token_values(logits.double(), tokens, mask, centre, value)
    assert got.q.dtype == got.v.dtype == out
    torch.testing.assert_close(got.q.double(), exact.q, rtol=1e-6, atol=1e-5)  # bfloat16 itself is good to 4e-3
    torch.testing.assert_close(got.v.double(), exact.v, rtol=1e-6, atol=1e-5)


def test_blocks_of_rows_change_nothing(monkeypatch):
    logits, tokens, mask = case(6, n=7)
    whole = token_values(logits, tokens, mask, value="soft")
    monkeypatch.setattr(values_module, "BLOCK_ELEMENTS", 2 * logits[0].numel())
    parts = token_values(logits, tokens, mask, value="soft")
    assert torch.equal(whole.q, parts.q)
    assert torch.equal(whole.v, parts.v)
    logits[5, 0], mask[5] = float("inf"), True
    with pytest.raises(ValueError, match="row 5, position 0"):
        token_values(logits, tokens, mask)


def test_logits_are_neither_kept_nor_changed():
    logits, tokens, mask = case(7)
    before = logits.clone(), tokens.clone(), mask.clone()
    got = token_values(logits, tokens, mask, "none")
    for kept in (got.q, got.v):
        assert kept.untyped_storage().nbytes() == kept.numel() * kept.element_size()
    got.q.fill_(1.0)
    assert torch.equal(logits, before[0])
    assert torch.equal(tokens, before[1])
    assert torch.equal(mask, before[2])


def test_gradients_reach_the_logits():
    logits, tokens, mask = case(8, n=2, t=3, vocabulary=4)
    for value in ("max", "soft"):
        assert torch.autograd.gradcheck(
            lambda x, value=value: token_values(x, tokens, mask, "logsumexp", value).gap, logits.requires_grad_()
        )


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_empty_batches(shape):
    empty = torch.zeros(shape)
    got = token_values(torch.zeros(*shape, 5), empty.long(), empty.bool())
    assert got.q.shape == got.v.shape == shape
    assert got.q.dtype == torch.float32


def test_rows_and_devices():
    logits, tokens, mask = case(9)
    got = token_values(logits, tokens, mask)
    assert len(got) == 4
    assert torch.equal(got[1:3].v, got.v[1:3])
    assert torch.equal(got[[2, 0]].q, got.q[[2, 0]])
    assert got.to(torch.float32).q.dtype == torch.float32
    assert got.to("cpu").v.device.type == "cpu"


INF = float("inf")


@pytest.mark.parametrize(
    ("centre", "value", "q", "v"),
    [
        ("none", "max", 1.0, 3.0),
        ("mean", "max", -1.0, 1.0),  # the mean of (3, 1), not of four
        ("logsumexp", "max", 1 - (3 + log1p(exp(-2))), -log1p(exp(-2))),
        ("none", "soft", 1.0, 3 - 2 * exp(-2) / (1 + exp(-2))),
        ("mean", "soft", -1.0, 1 - 2 * exp(-2) / (1 + exp(-2))),
    ],
)
def test_logits_at_minus_infinity_are_outside_the_action_set(centre, value, q, v):
    """Logits (3, -inf, 1, -inf), token 2 sampled: as if there were two tokens."""
    logits = torch.tensor([[[3.0, -INF, 1.0, -INF]]], dtype=torch.float64, requires_grad=True)
    got = token_values(logits, torch.tensor([[2]]), torch.ones(1, 1), centre, value)
    assert got.q.item() == pytest.approx(q, rel=1e-12)
    assert got.v.item() == pytest.approx(v, rel=1e-12)
    (slope,) = torch.autograd.grad(got.gap.sum(), logits)
    assert slope[0, 0, [1, 3]].tolist() == [0, 0]
    weight = 1 / (1 + exp(-2))  # of 3; d(w 3 + (1 - w) 1)/d3 = w + 2 w (1 - w)
    top = 1.0 if value == "max" else weight + 2 * weight * (1 - weight)
    assert slope[0, 0, [0, 2]].tolist() == pytest.approx([top, -top], rel=1e-12)


@given(seeds, st.sampled_from(CENTRES), st.sampled_from(["max", "soft"]))
def test_tokens_at_minus_infinity_change_nothing(seed, centre, value):
    """Values of a small vocabulary, and of the same tokens among others that are ruled out but in one place."""
    logits, tokens, mask = case(seed)
    wider = torch.cat([logits, torch.full_like(logits[..., :3], -INF)], dim=-1)
    wider[0, 0, -3:] = 0.0
    alone, among = (token_values(x, tokens, mask, centre, value) for x in (logits, wider))
    torch.testing.assert_close((among.q[1:], among.v[1:]), (alone.q[1:], alone.v[1:]), rtol=1e-12, atol=1e-12)
    assert torch.equal(among.q[0, :1], token_values(wider[:1, :1], tokens[:1, :1], mask[:1, :1], centre, value).q[0])


def test_a_sampled_token_at_minus_infinity_and_a_state_without_tokens_are_refused():
    logits, tokens, mask = case(10)
    mask[:], tokens[:] = True, 5
    logits[1, 2, 5] = -INF
    with pytest.raises(ValueError, match=r"tokens hold id 5 at row 1, position 2, .* its logit there is -inf"):
        token_values(logits, tokens, mask)
    logits[1, 2] = -INF
    with pytest.raises(ValueError, match=r"no finite value at row 1, position 2, .* all are -inf"):
        token_values(logits, tokens, mask)
    mask[1, 2:] = False
    got = token_values(logits, tokens, mask, value="soft")
    assert got.q.isfinite().all()
    assert got.v.isfinite().all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_logits_name_row_and_position(bad):
    logits, tokens, mask = case(10)
    mask[:] = True
    logits[2, 3, 1] = bad
    with pytest.raises(ValueError, match=r"NaN or infinite value at row 2, position 3.*bfloat16 or float32"):
        token_values(logits, tokens, mask)
    mask[2, 3:] = False
    assert token_values(logits, tokens, mask).q.isfinite().all()


@pytest.mark.parametrize("token", [11, -1, -100])
def test_tokens_outside_the_vocabulary_name_row_and_position(token):
    logits, tokens, mask = case(11)
    mask[:] = True
    tokens[1, 4] = token
    with pytest.raises(ValueError, match=rf"tokens hold id {token} at row 1, position 4, outside .* vocabulary of 11"):
        token_values(logits, tokens, mask)
    mask[1, 4:] = False
    assert token_values(logits, tokens, mask).q.isfinite().all()


def test_other_errors():
    logits, tokens, mask = case(12)
    with pytest.raises(ValueError, match=r"tokens must have the logits' shape \(N, T\) = \(4, 6\); got \(4, 5\)"):
        token_values(logits, tokens[:, :5], mask[:, :5])
    with pytest.raises(ValueError, match=r"mask must have the tokens' shape \(4, 6\); got \(4, 5\)"):
        token_values(logits, tokens, mask[:, :5])
    with pytest.raises(ValueError, match=r"mask row 0 has a hole"):
        token_values(logits, tokens, torch.tensor([[1, 0, 1, 0, 0, 0]] * 4))
    with pytest.raises(ValueError, match=r"centre='median' is unknown; choose one of mean, logsumexp, none"):
        token_values(logits, tokens, mask, centre="median")
    with pytest.raises(ValueError, match=r"value='min' is unknown; choose one of max, soft"):
        token_values(logits, tokens, mask, value="min")
    with pytest.raises(ValueError, match=r"logits must be a floating-point tensor of shape \(N, T, V\)"):
        token_values(logits[0], tokens, mask)
    with pytest.raises(ValueError, match=r"logits must be a floating-point tensor .* got torch.int64"):
        token_values(logits.long(), tokens, mask)
    with pytest.raises(ValueError, match=r"tokens must hold integer token ids; got torch.float32"):
        token_values(logits, tokens.float(), mask)
    with pytest.raises(ValueError, match=r"TokenValues.q and TokenValues.v must be two \(N, T\) tensors of one shape"):
        TokenValues(torch.zeros(2, 3), torch.zeros(2, 4))
