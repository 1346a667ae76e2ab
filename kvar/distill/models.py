"""Students and teachers: from a folder, a hub name, or a config of our own; one code path for all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

__all__ = ["build_model", "count_parameters", "load_model", "load_tokenizer"]


def load_model(name: str) -> Any:
    """A pretrained model from a folder or a hub name, seq2seq or causal as its config says; safetensors only.

    Raises:
        ValueError: not a model folder or hub name that can be loaded.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    try:
        config = AutoConfig.from_pretrained(name)
        family = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        return family.from_pretrained(name, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise ValueError(f"model {name!r} cannot be loaded: {error}") from error


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a model folder or hub name; the pad token falls back to end-of-sequence.

    Raises:
        ValueError: no tokenizer there.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(f"tokenizer of {name!r} cannot be loaded: {error}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def build_model(config: Mapping[str, Any], tokenizer: Any, *, seed: int = 0) -> Any:
    """A randomly initialised model from a config mapping, fitted to a tokenizer.

    Args:
        config: ``model_type`` (t5, gpt2, llama, ...) and any fields of that family's transformers config; the
            vocabulary size and special tokens are filled in from the tokenizer.
        tokenizer: student's tokenizer.
        seed: seed of the initial weights; the global random state is left as it was.

    Raises:
        ValueError: ``model_type`` missing or unknown to transformers.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    settings = dict(config)
    kind = settings.pop("model_type", None)
    if kind is None:
        raise ValueError(f"student_config must name a model_type (t5, gpt2, llama, ...); got {dict(config)}.")
    settings = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        **settings,
    }
    try:
        made = AutoConfig.for_model(kind, **settings)
    except ValueError as error:
        raise ValueError(f"student_config.model_type {kind!r} is unknown to transformers: {error}") from error
    if made.is_encoder_decoder and getattr(made, "decoder_start_token_id", None) is None:
        made.decoder_start_token_id = tokenizer.pad_token_id
    family = AutoModelForSeq2SeqLM if made.is_encoder_decoder else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return family.from_config(made)


def count_parameters(model: nn.Module) -> int:
    """Trainable parameters, shared ones once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
