"""Names of a batch's fields in TRL, verl and rollout engines, and their values as tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kvar.rollouts.padding import pad_right

__all__ = ["PER_TOKEN", "PROMPTS", "RESPONSES", "RESPONSE_MASKS", "fields_of", "first_of", "tensor"]

PROMPTS = ("prompts", "prompt_ids", "prompt_token_ids")
RESPONSES = ("responses", "completion_ids", "response_ids", "completion_token_ids")
RESPONSE_MASKS = ("completion_mask", "response_mask", "loss_mask", "tool_mask")
"""Masks of a response's tokens: what all of them keep is what the policy drew."""

PER_TOKEN: Mapping[str, tuple[str, ...]] = {
    "rollout_log_probs": ("rollout_log_probs", "sampling_per_token_logps", "response_logprobs", "logprobs"),
    "old_log_probs": ("old_log_probs", "old_per_token_logps"),
    "ref_log_probs": ("ref_log_probs", "ref_log_prob", "ref_per_token_logps"),
    "teacher_log_probs": ("teacher_log_probs", "teacher_logprobs", "teacher_per_token_logps"),
    "teacher_ids": ("teacher_ids",),
    "teacher_top_log_probs": ("teacher_top_log_probs", "teacher_topk_logprobs", "topk_logprobs"),
    "teacher_top_ids": ("teacher_top_ids", "teacher_topk_ids", "topk_token_ids"),
    "teacher_q": ("teacher_q",),
    "teacher_v": ("teacher_v",),
    "advantages": ("advantages",),
    "token_level_rewards": ("token_level_rewards",),
    "token_level_scores": ("token_level_scores",),
    "rm_scores": ("rm_scores",),
    "returns": ("returns",),
    "values": ("values",),
    "importance_sampling_ratio": ("importance_sampling_ratio", "rollout_is_weights"),
}
"""Field -> its names in batches; one value for each response token (or several, or one for each response)."""


def fields_of(batch: Any) -> dict[str, Any]:
    """The fields of a mapping, or of an object such as verl's ``DataProto`` with ``batch`` and ``non_tensor_batch``.

    Raises:
        TypeError: anything else.
    """
    if not isinstance(batch, Mapping) and hasattr(batch, "batch") and hasattr(batch, "non_tensor_batch"):
        return {str(name): x for part in (batch.batch, batch.non_tensor_batch) for name, x in (part or {}).items()}
    if not hasattr(batch, "items"):
        raise TypeError(f"a batch is a mapping of names to tensors, or verl's DataProto; got {type(batch).__name__}.")
    return {str(name): x for name, x in batch.items() if x is not None}


def first_of(fields: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The one of ``names`` that a batch holds as numbers, or None.

    Raises:
        ValueError: it holds two.
    """
    held = [name for name in names if name in fields and not _texts(fields[name])]
    if len(held) > 1:
        raise ValueError(f"the batch holds {held[0]!r} and {held[1]!r}, two names of one field: leave one of them out.")
    return held[0] if held else None


def tensor(value: Any, name: str) -> tuple[Tensor, Tensor | None]:
    """A field as a tensor, and the lengths of its rows where they were lists of several lengths, padded on the right.

    Args:
        value: a tensor, nested or not, a numpy array, numbers, or rows of numbers.
        name: of the field, for the message.

    Raises:
        ValueError: no numbers.
    """
    try:
        if _numeric(value):
            return torch.as_tensor(value).detach(), None
        rows = [torch.as_tensor(row) for row in (value.unbind() if isinstance(value, Tensor) else value)]
        if all(row.dim() == 0 for row in rows):
            return torch.stack(rows), None
        lengths = torch.tensor([len(row) for row in rows])
        if rows[0].dim() == 1 and not any(row.is_floating_point() for row in rows if len(row)):
            return pad_right(rows)[0], lengths
        return torch.nn.utils.rnn.pad_sequence([row.float() for row in rows], batch_first=True), lengths
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise ValueError(f"{name} must hold numbers, one row a response; {str(error).splitlines()[0]}.") from error


def _numeric(value: Any) -> bool:
    """Whether a value is a plain tensor or a numpy array of numbers."""
    if isinstance(value, Tensor):
        return not value.is_nested
    return getattr(getattr(value, "dtype", None), "kind", "O") in "biuf"


def _texts(value: Any) -> bool:
    """Whether a field holds texts or messages, as ``prompts`` may."""
    first = None if _numeric(value) or isinstance(value, Tensor) else next(iter(value), None)
    while isinstance(first, list) and first:
        first = first[0]
    return isinstance(first, str | Mapping)
