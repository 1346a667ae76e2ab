"""Prompts in any form, as ids and mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kvar.rollouts.padding import pad_right
from kvar.rollouts.policy import Policy
from kvar.rollouts.text.conversations import is_conversation
from kvar.rollouts.text.encoder import FORMS, Prompt, TextEncoder, check_prompts
from kvar.rollouts.vocabulary import check_tokenizer, pad_token

__all__ = ["Prompts", "encode_prompts"]

Prompts = Sequence[Prompt] | Sequence[Sequence[int]] | Mapping[str, Tensor] | tuple[Tensor, Tensor] | Tensor


def encode_prompts(
    prompts: Prompts, tokenizer: Any = None, model: Any = None, *, policy: Policy | None = None
) -> tuple[Tensor, Tensor]:
    """Prompts as ids and mask.

    Args:
        prompts: M texts; or M conversations, each a list of messages with role and content; or M lists of token ids; or
            (prompt_ids (M, S), prompt_mask (M, S)); or what a tokenizer returns (``input_ids`` and
            ``attention_mask``); or ids (M, S) without any padding.
        tokenizer: needed for texts and conversations, see :class:`kvar.rollouts.text.encoder.TextEncoder`.
        model: reads the prompts; those of a causal model get no end-of-sequence. None keeps all special tokens.
        policy: of the model; default that of model and tokenizer.

    Returns:
        (M, S) int64 ids and (M, S) bool mask; texts, conversations and lists are padded on the right.

    Raises:
        ValueError: no prompts, a single prompt in place of a list, an unknown form, an empty prompt, texts without a
            tokenizer, a tokenizer without a pad token, or ``input_ids`` with padding and no mask.
        TypeError: ``tokenizer`` is not a tokenizer.
    """
    check_tokenizer(tokenizer)
    if isinstance(prompts, Mapping):
        return _of_tokenizer(prompts, pad_token(tokenizer, model))
    check_prompts(prompts)
    if isinstance(prompts, Tensor):
        prompts = (prompts, torch.ones_like(prompts, dtype=torch.bool))
    if isinstance(prompts, tuple) and len(prompts) == 2 and all(isinstance(part, Tensor) for part in prompts):
        return _checked(*prompts)
    first = prompts[0]
    if not isinstance(first, str) and not is_conversation(first):
        return pad_right([_ids(ids, row) for row, ids in enumerate(prompts)])
    if tokenizer is None:
        raise ValueError("prompts are texts, so a tokenizer is needed: pass tokenizer=, or (prompt_ids, prompt_mask).")
    if tokenizer.pad_token_id is None:
        raise ValueError("tokenizer.pad_token is None: set it (tokenizer.pad_token = tokenizer.eos_token will do).")
    rows = TextEncoder(tokenizer, model, policy).prompts(list(prompts))  # type: ignore[arg-type]
    return pad_right(rows, tokenizer.pad_token_id)


def _of_tokenizer(encoded: Mapping[str, Any], pad: int | None) -> tuple[Tensor, Tensor]:
    if "input_ids" not in encoded:
        raise ValueError(f"prompts must be {FORMS}; got a mapping with {', '.join(map(str, encoded)) or 'nothing'}.")
    ids, mask = encoded["input_ids"], encoded.get("attention_mask")
    if mask is None and pad is not None:
        for row, tokens in enumerate(ids):
            if len(tokens) and pad in (int(tokens[0]), int(tokens[-1])):
                raise ValueError(
                    f"prompts has input_ids without attention_mask, and row {row} begins or ends with the padding "
                    f"token {pad}: pass attention_mask too, or lists of token ids without padding."
                )
    if isinstance(ids, Tensor):
        return _checked(ids, torch.ones_like(ids) if mask is None else mask)
    check_prompts(ids)
    rows = [_ids(row, place) for place, row in enumerate(ids)]
    if mask is not None:
        rows = [row[torch.as_tensor(kept).bool()] for row, kept in zip(rows, mask, strict=True)]
    return pad_right(rows)


def _checked(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    if ids.dim() != 2 or mask.shape != ids.shape:
        raise ValueError(
            f"prompts as tensors must be ids (M, S) and mask (M, S); got {tuple(ids.shape)} and {tuple(mask.shape)}. "
            "Give one prompt's ids as ids[None]."
        )
    if len(ids) == 0:
        raise ValueError("prompts is empty: give at least one prompt.")
    return ids, mask.bool()


def _ids(ids: Any, row: int) -> Tensor:
    try:
        tensor = torch.as_tensor(ids)
        if tensor.dim() == 1 and (not len(tensor) or not tensor.is_floating_point()):
            return tensor.long()
    except (TypeError, ValueError, RuntimeError):
        pass
    raise ValueError(f"prompts must be {FORMS}; got {type(ids).__name__} in row {row}.")
