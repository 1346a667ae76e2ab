"""Concatenate rollouts, and tensors of their tokens, along the trajectories."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kvar.rollouts.types import Rollouts

__all__ = ["concatenate", "concatenate_rows"]


def concatenate(parts: Sequence[Rollouts]) -> Rollouts:
    """Concatenate rollouts, padded on the right to the longest prompt and response.

    Raises:
        ValueError: the parts have several policies.
    """
    if any(part.policy != parts[0].policy for part in parts):
        raise ValueError(
            "rollouts of several policies cannot be joined: they differ in action set, ends or forced tokens. Draw "
            "them with one tokenizer and one generation config."
        )
    padded = ("prompt_ids", "prompt_mask", "tokens", "mask", "log_probs")
    rows = {name: concatenate_rows([getattr(part, name) for part in parts]) for name in padded}
    rows |= {name: torch.cat([getattr(part, name) for part in parts]) for name in ("finished", "prompt_index")}
    return Rollouts(**rows, policy=parts[0].policy)


def concatenate_rows(parts: Sequence[Tensor]) -> Tensor:
    """Concatenate tensors (N, T) of several N and T, padded with zeros on the right."""
    width = max(row.shape[1] for row in parts)
    return torch.cat([torch.nn.functional.pad(row, (0, width - row.shape[1])) for row in parts])
