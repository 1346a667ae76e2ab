"""Beam search over token ids, in and out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kvar.rollouts import is_encoder_decoder, vocabulary_size
from kvar.rollouts.forward import unwrapped

__all__ = ["beam_search"]


@torch.no_grad()
def beam_search(
    model: Any,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    tokenizer: Any,
    *,
    beams: int,
    max_new_tokens: int,
    processors: Sequence[Any] = (),
) -> list[list[int]]:
    """The best response of beam search to every prompt, end-of-sequence included unless the length limit cut it.

    Nothing but the arguments shapes the search: the model's own generation defaults (penalties, length limits) are set
    aside, and tokens past the tokenizer's size, which pad an embedding matrix, are never chosen.

    Args:
        model: seq2seq or causal; dropout is off meanwhile.
        prompt_ids: (N, S).
        prompt_mask: (N, S) bool.
        tokenizer: gives the special tokens and the vocabulary.
        beams: beams; 1 is greedy search.
        max_new_tokens: length limit.
        processors: transformers' logits processors, such as ``kvar.distill.calculator.Calculator``.
    """
    from transformers import GenerationConfig, LogitsProcessorList

    eos, seq2seq = tokenizer.eos_token_id, is_encoder_decoder(model)
    model = unwrapped(model)
    width = model.get_output_embeddings().weight.shape[0]
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        num_beams=beams,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=eos,
        decoder_start_token_id=getattr(model.generation_config, "decoder_start_token_id", None)
        or getattr(model.config, "decoder_start_token_id", None),
        suppress_tokens=list(range(vocabulary_size(tokenizer), width)) or None,
        renormalize_logits=True,  # else beams are compared by probabilities that padding has a share in
    )
    device = next(model.parameters()).device
    if not seq2seq:  # generation needs prompts that end together
        order = torch.argsort(prompt_mask.int(), dim=1, stable=True)
        prompt_ids, prompt_mask = prompt_ids.gather(1, order), prompt_mask.gather(1, order)
    modes = [(module, module.training) for module in model.modules()]
    kept, model.generation_config = model.generation_config, settings
    model.eval()
    try:
        out = model.generate(
            input_ids=prompt_ids.to(device),
            attention_mask=prompt_mask.long().to(device),
            logits_processor=LogitsProcessorList(processors),
        )
    finally:
        model.generation_config = kept
        for module, training in modes:
            module.training = training
    responses = []
    for row in out[:, 1 if seq2seq else prompt_ids.shape[1] :].tolist():
        responses.append(row[: row.index(eos) + 1] if eos in row else row)
    return responses
