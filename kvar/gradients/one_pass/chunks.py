"""Chunks of trajectories, one per forward pass, with prompts kept together if they fit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Chunk", "chunked"]


@dataclass(frozen=True)
class Chunk:
    """The trajectories of one forward pass.

    Attributes:
        rows: (n,) int64, their numbers.
        prompts: (m,) int64, positions (in ascending order of prompts) of their prompts.
        labels: (n,) int64, each row's position in ``prompts``.
        part: whether it holds one part of one prompt, larger than a chunk.
        last: whether it is the last part of its prompt (true for whole prompts).
    """

    rows: Tensor
    prompts: Tensor
    labels: Tensor
    part: bool = False
    last: bool = True

    @property
    def alone(self) -> bool:
        """Whether every trajectory is the only one of its prompt in this chunk."""
        return len(self.prompts) == len(self.rows)


def chunked(prompt_index: Tensor, size: int | None) -> list[Chunk]:
    """Split N trajectories into chunks of at most ``size``; None for one chunk of all, in the given order.

    A chunk holds whole prompts, or part of a single one that has more than ``size`` trajectories.

    Example:
        >>> [c.rows.tolist() for c in chunked(torch.tensor([1, 0, 1, 2]), 2)]
        [[1], [0, 2], [3]]
    """
    _, position = prompt_index.unique(return_inverse=True)
    n = len(position)
    if size is None or size >= n:
        return [_whole(torch.arange(n, device=position.device), position)]
    order = torch.argsort(position, stable=True)
    sizes = torch.bincount(position).tolist()
    chunks: list[Chunk] = []
    start = end = 0
    for count in sizes:
        if end > start and end - start + count > size:
            chunks.append(_whole(order[start:end], position))
            start = end
        end += count
        if count > size:
            for cut in range(start, end, size):
                rows = order[cut : min(cut + size, end)]
                chunks.append(
                    Chunk(rows, position[rows[:1]], torch.zeros_like(rows), part=True, last=cut + size >= end)
                )
            start = end
    if end > start:
        chunks.append(_whole(order[start:end], position))
    return chunks


def _whole(rows: Tensor, position: Tensor) -> Chunk:
    prompts, labels = position[rows].unique(return_inverse=True)
    return Chunk(rows, prompts, labels)
