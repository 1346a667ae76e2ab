"""Greedy search of a model that padding on the left would shift, against the search written out prompt by prompt."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from kvar.evaluation.beam import beam_search
from kvar.rollouts import Policy
from tests.cases import ragged_prompts

TOKENIZER = SimpleNamespace(pad_token_id=0, eos_token_id=1)
POLICY = Policy(size=15, ends=(1,), forbidden=(4,))


def _bart_decoder() -> Any:
    from transformers import BartConfig, BartForCausalLM

    torch.manual_seed(2)
    config = BartConfig(
        vocab_size=17, d_model=16, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=24, is_decoder=True,
        is_encoder_decoder=False, max_position_embeddings=64, pad_token_id=0, eos_token_id=1, bos_token_id=2,
    )  # fmt: skip
    model = BartForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model


def _never_six(input_ids: Tensor, scores: Tensor) -> Tensor:
    return scores.index_fill(-1, torch.tensor([6]), -torch.inf)


@pytest.mark.filterwarnings("ignore:decoding BartForCausalLM falls back")
def test_greedy_search_of_each_prompt_on_its_own() -> None:
    model, (ids, mask) = _bart_decoder(), ragged_prompts(rows=4)
    limits: dict[str, Any] = {"max_new_tokens": 6, "policy": POLICY, "processors": [_never_six]}
    made = beam_search(model, ids, mask, TOKENIZER, beams=1, **limits)
    for row in range(len(ids)):
        prompt, expected = ids[row][mask[row]].tolist(), []
        while len(expected) < 6 and 1 not in expected:
            logits = model(torch.tensor([prompt + expected])).logits[0, -1, :15].detach()
            logits[[4, 6]] = -torch.inf
            expected.append(int(logits.argmax()))
        assert made[row] == expected
    with pytest.raises(ValueError, match="beams=3: BartForCausalLM.*Set the number of beams to 1"):
        beam_search(model, ids, mask, TOKENIZER, beams=3, **limits)
