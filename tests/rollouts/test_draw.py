"""Drawing by inversion: the right token for every uniform number, whatever the vocabulary's size."""

from __future__ import annotations

import pytest
import torch

from kvar.rollouts.decoding.draw import NonFiniteLogitsError, draw, uniforms


@pytest.mark.parametrize("size", [1, 2, 3, 16, 17, 24, 25, 101, 4096])
def test_equals_a_walk_along_the_cumulative_distribution(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    logits = 4 * torch.randn(64, size, generator=generator)
    chance = torch.rand(64, generator=generator, dtype=torch.float64)
    token, log_prob = draw(logits, 0.8, 0, chance)
    p = (logits.double() / 0.8).softmax(dim=-1)
    cumulative = p.cumsum(dim=-1)
    assert ((token >= 0) & (token < size)).all()
    picked = token[:, None]
    above = cumulative.gather(1, picked)[:, 0]
    assert (chance <= above + 1e-6).all() and (chance >= above - p.gather(1, picked)[:, 0] - 1e-6).all()
    torch.testing.assert_close(log_prob.double(), p.log().gather(1, picked)[:, 0], atol=1e-5, rtol=1e-5)


def test_the_ends_of_the_unit_interval_never_give_an_impossible_token() -> None:
    last = torch.nextafter(torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64))
    chance = torch.tensor([0.0, float(last)], dtype=torch.float64)
    for size in (3, 16, 30, 4097):
        for possible in (0, size // 2, size - 1):
            logits = torch.full((2, size), -torch.inf)
            logits[:, possible] = 3.0
            token, log_prob = draw(logits, 1.0, 0, chance)
            assert token.tolist() == [possible, possible] and log_prob.tolist() == [0.0, 0.0]


def test_rare_tokens_far_down_the_vocabulary_keep_their_probability() -> None:
    """A probability of 1e-9 behind one of nearly 1: below what a float32 cumulative sum can tell apart."""
    logits = torch.full((1, 4096), -torch.inf)
    logits[0, 0], logits[0, 4000], logits[0, 4095] = 0.0, -20.0, -20.0
    small = 2.0611536e-9
    chance = torch.tensor([1 - 1.5 * small, 1 - 0.5 * small, 1 - 3 * small], dtype=torch.float64)
    assert draw(logits.expand(3, -1), 1.0, 0, chance)[0].tolist() == [4000, 4095, 0]


@pytest.mark.parametrize("temperature", [1.0, 0.0])
@pytest.mark.parametrize("top_k", [0, 3])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_logits_that_are_not_finite_are_refused(bad: float, top_k: int, temperature: float) -> None:
    """NaN, +inf, or nothing but -inf; a single -inf is a token outside the action set, and is right."""
    logits, chance = torch.zeros(3, 10), torch.full((3,), 0.5, dtype=torch.float64)
    logits[1, 4] = -torch.inf
    draw(logits, temperature, top_k, chance)
    logits[1] = bad if bad == -torch.inf else logits[1]
    logits[1, 4] = bad
    with pytest.raises(NonFiniteLogitsError, match=r"\(row 1 of the batch\), so no .*lower learning_rate") as refused:
        draw(logits, temperature, top_k, chance)
    assert (refused.value.row, refused.value.step) == (1, None)
    with pytest.raises(NonFiniteLogitsError, match="row 8 of the batch, token 5 of its response"):
        draw(logits, temperature, top_k, chance, 5, torch.tensor([6, 8, 9]))


def test_uniforms_fill_row_after_row() -> None:
    assert torch.equal(uniforms(3, 5, 4)[:2], uniforms(3, 2, 4))
    assert torch.equal(uniforms([7, 3, 7], 3, 4)[0], uniforms([7], 1, 4)[0])
    assert uniforms(3, 2, 4).dtype == torch.float64
