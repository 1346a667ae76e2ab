"""A tensor common to all trajectories, repeated over them: attention sinks, a first state, a learned token."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kvar.gradients.operations.registry import Operation, operation

__all__ = ["expansion"]


@operation("expand", "broadcast_to", "repeat", joined=False)
def expansion(op: Operation) -> Any:
    """U (1, ...) repeated to (N, ...)."""
    u, n = op.args[0], op.axes.n
    sizes = op.args[1] if len(op.args) == 2 and isinstance(op.args[1], (tuple, list)) else op.args[1:]
    if op.kwargs or not isinstance(u, Tensor) or not all(isinstance(size, int) for size in sizes):
        return NotImplemented
    more = len(sizes) - u.dim()
    if n == 1 or not sizes or sizes[0] != n or (more == 0 and u.shape[0] != 1):
        return NotImplemented
    if more == 0:
        u = op.alike(u, u[0])
    copies = op.own_copies(u, len(sizes) - 1, op.name)
    rest = (1, *sizes[1:]) if op.name == "repeat" else (n, *sizes[1:])
    return op.run(op.func, copies, *rest) if op.name != "broadcast_to" else op.run(op.func, copies, rest)
