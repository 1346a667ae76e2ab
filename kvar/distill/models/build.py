"""Students from random weights: any family that transformers knows, fitted to a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from kvar.rollouts import vocabulary_size

__all__ = ["build_model", "count_parameters"]


def build_model(config: Mapping[str, Any], tokenizer: Any, *, seed: int = 0) -> Any:
    """A randomly initialised model from a config mapping, fitted to a tokenizer.

    Args:
        config: ``model_type`` (t5, gpt2, llama, ...) and any fields of that family's transformers config; the
            vocabulary size and special tokens are filled in from the tokenizer.
        tokenizer: student's tokenizer.
        seed: seed of the initial weights; the global random state is left as it was.

    Raises:
        ValueError: ``model_type`` missing or unknown to transformers, or a field that its config refuses.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    settings = dict(config)
    kind = settings.pop("model_type", None)
    if kind is None:
        raise ValueError(f"student_config must name a model_type (t5, gpt2, llama, ...); got {dict(config)}.")
    settings = {
        "vocab_size": vocabulary_size(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        **settings,
    }
    try:
        made = AutoConfig.for_model(kind, **settings)
    except Exception as error:  # of a kind unknown ValueError; its fields' checks raise errors of their own
        raise ValueError(
            f"student_config of {kind!r} is refused by transformers: {' '.join(str(error).split())}"
        ) from error
    if made.is_encoder_decoder and getattr(made, "decoder_start_token_id", None) is None:
        made.decoder_start_token_id = tokenizer.pad_token_id
    family = AutoModelForSeq2SeqLM if made.is_encoder_decoder else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return family.from_config(made)


def count_parameters(model: nn.Module) -> int:
    """Trainable parameters, shared ones once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
