"""Greedy or beam decoding of a task's examples, and its metrics on the texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from kvar.rollouts import encode_prompts, is_encoder_decoder, vocabulary_size
from kvar.rollouts.forward import unwrapped

if TYPE_CHECKING:
    from kvar.tasks import Example, Task

__all__ = ["Evaluation", "decode", "evaluate"]


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one model on one split, with the texts they were computed from."""

    metrics: dict[str, float]
    texts: list[str]


@torch.no_grad()
def decode(
    model: Any, prompts: Sequence[str], tokenizer: Any, *, max_new_tokens: int, num_beams: int = 1, batch: int = 64
) -> list[str]:
    """Responses to ``prompts`` by greedy search (``num_beams`` 1) or beam search, in the prompts' order.

    Nothing but the arguments shapes the search: the model's own generation defaults (penalties, length limits) are
    set aside, only its special tokens are used.

    Raises:
        ValueError: no prompts.
    """
    from transformers import GenerationConfig

    if not prompts:
        raise ValueError("prompts is empty: give at least one prompt.")
    model = unwrapped(model)
    beyond = list(range(vocabulary_size(tokenizer), model.get_output_embeddings().weight.shape[0]))
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        num_beams=num_beams,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=getattr(model.generation_config, "decoder_start_token_id", None)
        or getattr(model.config, "decoder_start_token_id", None),
        suppress_tokens=beyond or None,  # rows that only pad the embedding matrix
    )
    device = next(model.parameters()).device
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    texts = [""] * len(prompts)
    modes = [(module, module.training) for module in model.modules()]
    kept, model.generation_config = model.generation_config, settings
    model.eval()
    try:
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            ids, mask = encode_prompts([prompts[i] for i in rows], tokenizer)
            if not is_encoder_decoder(model):  # generation needs prompts that end together
                to_right = torch.argsort(mask.int(), dim=1, stable=True)
                ids, mask = ids.gather(1, to_right), mask.gather(1, to_right)
            out = model.generate(input_ids=ids.to(device), attention_mask=mask.long().to(device))
            out = out if is_encoder_decoder(model) else out[:, ids.shape[1] :]
            for i, text in zip(rows, tokenizer.batch_decode(out, skip_special_tokens=True), strict=True):
                texts[i] = text.strip()
    finally:
        model.generation_config = kept
        for module, training in modes:
            module.training = training
    return texts


def evaluate(
    model: nn.Module,
    task: Task,
    examples: Sequence[Example],
    tokenizer: Any,
    *,
    max_new_tokens: int,
    num_beams: int = 1,
    batch: int = 64,
) -> Evaluation:
    """Decode ``examples`` and score them with the task's own metrics; adds the mean response length in tokens."""
    prompts = [example.prompt for example in examples]
    texts = decode(model, prompts, tokenizer, max_new_tokens=max_new_tokens, num_beams=num_beams, batch=batch)
    lengths = [len(ids) for ids in tokenizer(texts)["input_ids"]]
    metrics = {**task.metrics(texts, examples), "length": sum(lengths) / len(lengths)}
    return Evaluation(metrics, texts)
