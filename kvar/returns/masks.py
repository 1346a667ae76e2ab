"""Masks of right-padded responses."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["check_mask"]


def check_mask(mask: Tensor, name: str = "mask") -> Tensor:
    """Return ``mask`` as bool after checking that every row is a run of ones, then zeros.

    Args:
        mask: (N, T), bool or 0/1 numbers; right padding only.
        name: the field's name, for the error message.

    Returns:
        (N, T) bool tensor.

    Raises:
        ValueError: not two-dimensional, other values than 0 and 1, or a hole (a one behind a zero).
    """
    if mask.dim() != 2:
        raise ValueError(f"{name} must have shape (N, T); got {tuple(mask.shape)}.")
    ones = mask.bool()
    if mask.dtype != torch.bool and not bool(((mask == 0) | (mask == 1)).all()):
        raise ValueError(f"{name} must hold only 0 and 1; got other values. Pass a boolean mask.")
    holes = (ones[:, 1:] & ~ones[:, :-1]).any(dim=1)
    if bool(holes.any()):
        row = int(holes.nonzero()[0])
        raise ValueError(
            f"{name} row {row} has a hole: a response is a run of ones followed by padding. Pad responses on the right."
        )
    return ones
