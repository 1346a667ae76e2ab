"""Build students with random weights, of any transformers family, fitted to a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from torch import nn

from kvar.rollouts import vocabulary_size

__all__ = ["architecture", "build_model", "count_parameters"]


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
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    filled = {
        "vocab_size": vocabulary_size(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    made = architecture(config, filled)
    if made.is_encoder_decoder and getattr(made, "decoder_start_token_id", None) is None:
        made.decoder_start_token_id = tokenizer.pad_token_id
    family = AutoModelForSeq2SeqLM if made.is_encoder_decoder else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return family.from_config(made)


def architecture(config: Mapping[str, Any], filled: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """The transformers config that a mapping describes.

    Args:
        config: ``model_type`` and any fields of that family's config.
        filled: defaults for fields that ``config`` leaves out.

    Raises:
        ValueError: ``model_type`` missing or unknown to transformers, or a field that its family refuses.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    fields = {**filled, **config}
    kind = fields.pop("model_type", None)
    if kind is None:
        raise ValueError(f"student_config must name a model_type (t5, gpt2, llama, ...); got {dict(config)}.")
    if kind not in CONFIG_MAPPING:
        near = get_close_matches(str(kind), list(CONFIG_MAPPING), n=3)
        raise ValueError(
            f"student_config.model_type {kind!r} is unknown to transformers; "
            + (f"did you mean {' or '.join(near)}?" if near else "t5, gpt2 and llama are some that it knows.")
        )
    try:
        return AutoConfig.for_model(kind, **fields)
    except Exception as error:  # transformers' checks raise many kinds
        message = " ".join(str(error).split())
        raise ValueError(f"student_config of {kind!r} is refused by transformers: {message}") from error


def count_parameters(model: nn.Module) -> int:
    """The number of trainable parameters; shared ones count once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
