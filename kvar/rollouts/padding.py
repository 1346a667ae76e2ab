"""Rows of token ids of several lengths as one tensor with its mask."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["pad_right"]


def pad_right(rows: Sequence[Sequence[int] | Tensor], fill: int = 0) -> tuple[Tensor, Tensor]:
    """(N, T) int64 ids, ``fill`` behind each row's end, and (N, T) bool mask; T is at least 1.

    Example:
        >>> pad_right([[5], [6, 7]])[0].tolist()
        [[5, 0], [6, 7]]
    """
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(max(int(lengths.max()), 1)) < lengths[:, None]
    ids = torch.full(mask.shape, fill)
    ids[mask] = torch.cat([torch.as_tensor(row, dtype=torch.long).cpu() for row in rows])
    return ids, mask
