"""Teacher scoring: alignment, padded vocabularies, refusal of other tokenizers."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from kvar.rollouts import check_same_tokenizer, sample, score, token_logits
from kvar.tasks.tokenizers import word_tokenizer
from tests.cases import MODELS, ragged_prompts, tiny_gpt2, tiny_t5


@pytest.mark.parametrize("name", MODELS)
def test_values_are_of_the_sampled_tokens(name: str) -> None:
    student, teacher = MODELS[name](seed=0), MODELS[name](seed=1)
    rollouts = sample(student, ragged_prompts(), rollouts_per_prompt=2, max_new_tokens=6, seed=1)
    values = score(teacher, rollouts)
    logits = token_logits(teacher, rollouts).detach()
    centred = logits - logits.mean(dim=-1, keepdim=True)
    expected = centred.gather(-1, rollouts.tokens[..., None])[..., 0]
    torch.testing.assert_close(values.q, expected.masked_fill(~rollouts.mask, 0.0))
    torch.testing.assert_close(values.v, centred.max(dim=-1).values.masked_fill(~rollouts.mask, 0.0))
    assert (values.gap >= 0).all()


def test_micro_batches_change_nothing() -> None:
    student, teacher = tiny_t5(seed=0), tiny_t5(seed=1)
    rollouts = sample(student, ragged_prompts(), rollouts_per_prompt=3, max_new_tokens=6, seed=1)
    whole, parts = score(teacher, rollouts), score(teacher, rollouts, micro_batch=4)
    torch.testing.assert_close(whole.q, parts.q, atol=1e-5, rtol=0)
    torch.testing.assert_close(whole.v, parts.v, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("ours", "theirs"), [(17, 24), (24, 17)])
@pytest.mark.parametrize("make", [tiny_t5, tiny_gpt2])
def test_vocabularies_padded_to_different_sizes(make: object, ours: int, theirs: int) -> None:
    """Models of one tokenizer (15 tokens) whose embedding matrices were padded differently."""
    student, teacher = make(vocab_size=ours), make(vocab_size=theirs, seed=1)  # type: ignore[operator]
    rollouts = sample(student, ragged_prompts(vocab_size=15), max_new_tokens=6, seed=1, vocabulary=15)
    values = score(teacher, rollouts, vocabulary=15)
    logits = token_logits(teacher, rollouts)[..., :15]
    best = (logits.max(dim=-1).values - logits.mean(dim=-1)).masked_fill(~rollouts.mask, 0.0)
    torch.testing.assert_close(values.v, best.detach())


def test_the_teacher_keeps_its_mode_and_gets_no_gradient() -> None:
    student, teacher = tiny_t5(), tiny_t5(seed=1, dropout_rate=0.5).train()
    rollouts = sample(student, ragged_prompts(), max_new_tokens=4, seed=1)
    values = score(teacher, rollouts)
    assert teacher.training and not values.q.requires_grad
    torch.testing.assert_close(values.q, score(teacher.eval(), rollouts).q)


def test_different_tokenizers_are_refused() -> None:
    one, two = word_tokenizer(["Mia has 12 pens."]), word_tokenizer(["Tom has 12 pens."])
    check_same_tokenizer(one, word_tokenizer(["Mia has 12 pens."]))
    with pytest.raises(ValueError, match=r"different tokenizers .*'Mia' has id"):
        check_same_tokenizer(one, two)
    assert isinstance(one, PreTrainedTokenizerFast)
