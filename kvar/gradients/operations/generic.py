"""Any other operation that keeps the trajectories apart, run again for each of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kvar.gradients.capture.axis import Axis
from kvar.gradients.capture.plan import UncoveredError
from kvar.gradients.operations.registry import Operation, operation, pulled
from kvar.gradients.rules.uses import written_out

__all__ = ["generic"]


@operation("")
def generic(op: Operation) -> Any:
    """y_i = f(u, x_i): the vector-Jacobian product of f with respect to u, one trajectory after another."""
    n = op.axes.n
    common = {id(x): x for x in op.given if op.common(x)}
    leading = {id(x) for x in op.given if op.leading(x)}
    scattered = any(op.axes.of(x) is not Axis.COMMON and id(x) not in leading for x in op.given)
    if op.in_place or op.name == "__setitem__" or scattered or not leading:
        return NotImplemented

    def swapped(value: Any, swap: dict[int, Tensor], row: int | None) -> Any:
        if isinstance(value, (tuple, list)):
            return type(value)(swapped(v, swap, row) for v in value)
        if not isinstance(value, Tensor):
            return value
        if id(value) in swap:
            return swap[id(value)]
        if row is None or id(value) not in leading:
            return value
        each = value.shape[0] // n
        return value.detach()[row * each : (row + 1) * each]

    def again(swap: dict[int, Tensor], row: int | None) -> Any:
        return op.func(*swapped(op.args, swap, row), **{k: swapped(v, swap, row) for k, v in op.kwargs.items()})

    out = again({key: u.detach() for key, u in common.items()}, None)
    if not isinstance(out, Tensor) or out.dim() == 0 or out.shape[0] % n or not out.is_floating_point():
        return NotImplemented
    parameters = op.roots_of(list(common.values()))

    @torch.enable_grad()
    def gradient(p: torch.nn.Parameter, grad: Tensor) -> Tensor:
        total = grad.new_zeros(n, *p.shape)
        leaves = {key: u.detach().requires_grad_() for key, u in common.items()}
        for row, part in enumerate(grad.split(grad.shape[0] // n)):
            try:
                out = again(leaves, row)
            except RuntimeError as error:  # an argument that is no tensor holds the number of trajectories
                raise UncoveredError({id(p)}) from error
            made = torch.autograd.grad(out, list(leaves.values()), part, allow_unused=True, materialize_grads=True)
            for u, g in zip(common.values(), made, strict=True):
                if any(p is root for root in op.roots_of([u])):
                    total[row] += pulled(u, p, g[None])[0]
        return total

    reads = tuple(x for x in op.given if id(x) in leading)
    return op.run(op.note, op.name, parameters, written_out(parameters, gradient), out, reads)
