"""Rows of an encoder's output, an object of any type and fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ["rows_of"]


def rows_of(output: Any, rows: Tensor, batch: int) -> Any:
    """The output for some of its rows, in that order.

    Args:
        output: a transformers ``ModelOutput``, a tensor, or tuples, lists and mappings of them.
        rows: (R,) int64.
        batch: N, the number of rows; tensors of another first size (a router's loss) are unchanged.

    Returns:
        An object of the same type.
    """
    if isinstance(output, Tensor):
        return output[rows] if output.dim() and output.shape[0] == batch else output
    if isinstance(output, Mapping):
        return type(output)(**{name: rows_of(value, rows, batch) for name, value in output.items()})
    if isinstance(output, tuple | list):
        return type(output)(rows_of(value, rows, batch) for value in output)
    return output
