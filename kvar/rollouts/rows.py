"""Rows of rollouts, known by what they hold."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kvar.rollouts.types import Rollouts

__all__ = ["row_numbers"]


def row_numbers(rollouts: Rollouts) -> Callable[[Rollouts], Tensor]:
    """A function from some of the rollouts, in any order and width, to their (n,) row numbers.

    Rows with one prompt and one response have the number of the last of them. Rows that are not among the rollouts
    raise a KeyError.
    """
    known = {_key(rollouts, row): row for row in range(len(rollouts))}
    return lambda some: torch.tensor([known[_key(some, row)] for row in range(len(some))], device=some.tokens.device)


def _key(rollouts: Rollouts, row: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Prompt and response."""
    return (
        tuple(rollouts.prompt_ids[row][rollouts.prompt_mask[row]].tolist()),
        tuple(rollouts.tokens[row][rollouts.mask[row]].tolist()),
    )
