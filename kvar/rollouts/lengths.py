"""Check that prompts and responses fit the positions of the models that read them."""

from __future__ import annotations

from typing import Any

from kvar.rollouts.forward import is_encoder_decoder, unwrapped

__all__ = ["check_lengths"]

RELATIVE = ("t5", "mt5", "umt5", "longt5", "switch_transformers", "byt5", "bloom", "mpt")
"""Families with relative positions only: their config may name a length, but it is no limit."""


def check_lengths(
    student: Any, teacher: Any | None, prompt_tokens: int, max_new_tokens: int, *, prompt: str = "the longest prompt"
) -> None:
    """Refuse prompts and responses longer than a model's positions.

    Args:
        student: seq2seq or causal model.
        teacher: the same, or None.
        prompt_tokens: tokens of the longest prompt.
        max_new_tokens: length limit of responses.
        prompt: name of the longest prompt in the message.

    Raises:
        ValueError: a model has too few positions: for prompt and response together in a causal model, for each of
            them in an encoder-decoder.
    """
    for role, model in (("student", student), ("teacher", teacher)):
        if model is None:
            continue
        prompt_limit, response_limit = _positions(model, "encoder"), _positions(model, "decoder")
        if is_encoder_decoder(model):
            _check_fits(role, prompt, prompt_tokens, prompt_limit, "max_prompt_tokens")
            _check_fits(role, "the longest response", max_new_tokens, response_limit, "max_new_tokens")
            continue
        if response_limit is not None and prompt_tokens + max_new_tokens > response_limit:
            raise ValueError(
                f"{prompt} has {prompt_tokens} tokens and max_new_tokens is {max_new_tokens}, together more "
                f"than the {response_limit} positions of the {role}. Lower max_new_tokens to "
                f"{max(response_limit - prompt_tokens, 0)} or less, or use shorter prompts."
                if prompt_tokens < response_limit
                else f"{prompt} has {prompt_tokens} tokens, which leaves no room for a response in the "
                f"{response_limit} positions of the {role}. Shorten the prompts or use a model with more positions."
            )


def _check_fits(role: str, what: str, tokens: int, limit: int | None, field: str) -> None:
    if limit is not None and tokens > limit:
        raise ValueError(
            f"{what} has {tokens} tokens, more than the {limit} positions of the {role}. Lower {field} to {limit} and "
            "shorten what is longer, or use a model with more positions."
        )


def _positions(model: Any, side: str) -> int | None:
    """Positions of one side of a model (a causal model is a decoder); None where nothing limits them."""
    config = getattr(unwrapped(model), "config", None)
    if getattr(config, "model_type", None) in RELATIVE:
        return None
    other = "source" if side == "encoder" else "target"
    for name in (f"max_{side}_position_embeddings", f"max_{other}_positions", "max_position_embeddings"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None
