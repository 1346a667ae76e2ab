"""Where a forward pass's logits lie: prompts of one length or of many, heads that can skip positions or cannot."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kvar.rollouts import sample, token_logits
from kvar.rollouts.forward import decoder_start, forward_inputs
from tests.cases import MODELS, ragged_prompts, tiny_gpt2, tiny_t5


class _AllPositions(nn.Module):
    """A causal model whose forward pass always returns every position's logits."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.config = inner, inner.config

    def forward(self, input_ids: Tensor, attention_mask: Tensor, use_cache: bool) -> Any:
        return self.inner(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_logits_are_those_before_each_token(ragged: bool, whole: bool) -> None:
    model, (ids, mask) = tiny_gpt2(), ragged_prompts(rows=4)
    prompts = (ids, mask) if ragged else (ids[:, :2], mask[:, :2])
    rollouts = sample(model, prompts, rollouts_per_prompt=2, max_new_tokens=6, seed=0)
    logits = token_logits(_AllPositions(model) if whole else model, rollouts)
    assert logits.shape[:2] == rollouts.tokens.shape
    for i in range(len(rollouts)):
        prompt, length = rollouts.prompt_ids[i][rollouts.prompt_mask[i]], int(rollouts.lengths[i])
        alone = model(torch.cat([prompt, rollouts.tokens[i, :length]])[None]).logits[0]
        torch.testing.assert_close(logits[i, :length], alone[len(prompt) - 1 : -1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_the_last_token_is_never_read(name: str) -> None:
    model, (ids, mask) = MODELS[name](), ragged_prompts()
    rollouts = sample(model, (ids, mask), max_new_tokens=5, seed=0)
    inputs, _ = forward_inputs(model, rollouts)
    if "decoder_input_ids" in inputs:
        assert inputs["decoder_input_ids"].shape[1] == rollouts.tokens.shape[1]
    else:
        assert inputs["input_ids"].shape[1] == int(mask.sum(dim=1).max()) + rollouts.tokens.shape[1] - 1


def test_a_start_token_for_each_row_is_refused() -> None:
    model = tiny_t5()
    model.generation_config.decoder_start_token_id = [0, 0]
    assert decoder_start(model) == 0
    model.generation_config.decoder_start_token_id = [0, 3]
    with pytest.raises(ValueError, match=r"decoder_start_token_id is \[0, 3\]"):
        decoder_start(model)
