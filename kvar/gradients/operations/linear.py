"""Products with a matrix common to all trajectories: routers, functional linear layers, transposed weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from kvar.gradients.operations.registry import Operation, matrix_of, operation, pulled
from kvar.gradients.rules.uses import Call, Outer, PerRow, Use, written_out

__all__ = ["linear", "product"]


@operation("linear")
def linear(op: Operation) -> Any:
    """Y = x W^T + b."""
    x, weight, bias = _arguments(op, ("input", "weight", "bias"))
    return _noted(op, x, weight, bias)


@operation("matmul", "mm")
def product(op: Operation) -> Any:
    """Y = x W."""
    if len(op.args) != 2 or op.kwargs:
        return NotImplemented
    x, matrix = op.args
    if op.leading(matrix) and op.common(x) and x.dim() == 2 and matrix.dim() == 3:
        return _from_left(op, x, matrix)
    if matrix.dim() != 2 or x.dim() < 2:
        return NotImplemented
    return _noted(op, x, op.alike(matrix, matrix.mT), None)


def _noted(op: Operation, x: Tensor, weight: Tensor, bias: Tensor | None) -> Any:
    if not op.leading(x) or op.common(x) or not all(v is None or _plain(op, v) for v in (weight, bias)):
        return NotImplemented
    n, given = op.axes.n, x.detach()
    uses: dict[nn.Parameter, Callable[[Call], Use]] = {}
    if op.common(weight):
        known = matrix_of(weight, op)
        for p in op.roots_of([weight]):
            if known is not None:
                side = 0 if known[1] else 1
                uses[p] = lambda call, side=side: Outer(call.rows(given), side=side)  # type: ignore[misc]
            else:
                uses[p] = lambda call, p=p: PerRow(  # type: ignore[misc]
                    lambda grad: pulled(weight, p, call.rows(grad).mT @ call.rows(given).to(grad.dtype))
                )
    if bias is not None and op.common(bias):
        for p in op.roots_of([bias]):
            if p in uses:
                return NotImplemented
            uses[p] = lambda call, p=p: PerRow(  # type: ignore[misc]
                lambda grad: pulled(bias, p, call.rows(grad).sum(dim=1).reshape(n, *bias.shape))
            )
    parameters = tuple(uses)
    frozen = [None if v is None else v.detach() if op.common(v) else v for v in (weight, bias)]
    out = F.linear(x, frozen[0], frozen[1])  # type: ignore[arg-type]

    def function(call: Call) -> dict[str, Use]:
        return {str(k): uses[p](call) for k, p in enumerate(parameters)}

    return op.run(op.note, "joined", parameters, function, out, (given,))


def _from_left(op: Operation, weight: Tensor, x: Tensor) -> Any:
    """Y = W x, x (N, k, T): the gradient is that of W in y^T = x^T W^T."""
    n, given, known = op.axes.n, x.detach(), matrix_of(weight, op)
    if x.shape[0] != n:
        return NotImplemented
    parameters = op.roots_of([weight])

    function = written_out(parameters, lambda p, grad: pulled(weight, p, grad @ given.mT.to(grad.dtype)))
    if known is not None:
        use = Outer(given.mT, side=0 if known[1] else 1, grad=lambda grad: grad.mT)
        return op.run(op.note, "joined", parameters, lambda call: {"0": use}, weight.detach() @ x, (given,))
    return op.run(op.note, "joined", parameters, function, weight.detach() @ x, (given,))


def _plain(op: Operation, x: Tensor) -> bool:
    return op.common(x) or not (op.leading(x) or x.requires_grad)


def _arguments(op: Operation, names: tuple[str, ...]) -> list[Any]:
    given = dict(zip(names, op.args, strict=False)) | op.kwargs
    return [given.get(name) for name in names]
