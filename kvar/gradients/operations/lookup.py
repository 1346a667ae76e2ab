"""Rows of a table looked up by each trajectory's ids."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from kvar.gradients.operations.generic import generic
from kvar.gradients.operations.registry import Operation, matrix_of, operation
from kvar.gradients.rules.uses import Call, Outer, Use

__all__ = ["embedding", "indexed"]


@operation("embedding")
def embedding(op: Operation) -> Any:
    """table[ids]."""
    given = dict(zip(("input", "weight", "padding_idx", "max_norm"), op.args, strict=False)) | op.kwargs
    if any(given.get(name) for name in ("max_norm", "scale_grad_by_freq")) or given.get("padding_idx") is not None:
        return NotImplemented
    return _looked_up(op, given["weight"], given["input"])


@operation("getitem")
def indexed(op: Operation) -> Any:
    """table[ids], by an index."""
    table, index = op.args
    if isinstance(index, Tensor) and not index.is_floating_point() and index.dtype.itemsize == 8:
        return _looked_up(op, table, index)
    return generic(op)


def _looked_up(op: Operation, table: Tensor, ids: Tensor) -> Any:
    known = matrix_of(table, op)
    if not op.leading(ids):
        return NotImplemented
    if known is None or known[1]:
        return generic(op)
    given = ids.detach()

    def function(call: Call) -> dict[str, Use]:
        where = call.rows(given, keep=0)
        return {"0": Outer(where % len(table), side=0)}

    return op.run(op.note, "joined", (known[0],), function, F.embedding(given % len(table), table.detach()), (given,))
