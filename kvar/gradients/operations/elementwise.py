"""Elementwise operations with broadcasting: a gain, a bias, a scale, a step size."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kvar.gradients.capture.axis import Axis
from kvar.gradients.operations.registry import Operation, operation

__all__ = ["broadcast", "elementwise"]


@operation(
    *(f"{side}{name}" for side in ("", "r", "i") for name in ("add", "sub", "mul", "truediv", "div", "pow")),
    *("multiply", "divide", "true_divide", "subtract", "where", "maximum", "minimum", "addcmul", "addcdiv", "lerp"),
    *("masked_fill", "scaled_dot_product_attention", "fmod", "remainder", "logaddexp", "atan2", "hypot"),
)
def elementwise(op: Operation) -> Any:
    """f(u, x) with u broadcast along the trajectories."""
    if op.in_place and op.common(op.args[0]):
        return NotImplemented
    swap = {id(x): broadcast(op, x) for x in op.given if op.common(x)}
    if any(value is None for value in swap.values()):
        return NotImplemented

    def swapped(value: Any) -> Any:
        return swap.get(id(value), value)

    return op.run(op.func, *map(swapped, op.args), **{name: swapped(value) for name, value in op.kwargs.items()})


def broadcast(op: Operation, u: Tensor) -> Tensor | None:
    """Copies of ``u`` that broadcast against the tensors that run over the trajectories; None if impossible."""
    others = [x for x in op.given if x.dim() > 0 and not op.common(x)]
    lead = [x for x in others if op.leading(x)]
    dims = max((x.dim() for x in op.given), default=0)
    if any(op.axes.of(x) is Axis.SCATTERED for x in others):
        return None
    if not lead or any(x.dim() != dims for x in lead) or u.dim() > dims:
        return None
    rows = lead[0].shape[0]
    if any(x.shape[0] != rows for x in lead) or (u.dim() == dims and u.shape[0] != 1):
        return None
    each = rows // op.axes.n
    if u.dim() == dims:
        u = op.alike(u, u[0])
    copies = op.own_copies(u, dims - 1)
    return copies if each == 1 else copies.repeat_interleave(each, dim=0)
