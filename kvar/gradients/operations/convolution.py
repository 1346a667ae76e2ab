"""Convolutions along one axis, depthwise ones above all: those before a state-space scan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from kvar.gradients.operations.registry import Operation, operation, pulled
from kvar.gradients.rules.uses import Call, PerRow, Use

__all__ = ["convolution"]


@operation("conv1d")
def convolution(op: Operation) -> Any:
    """y_it = sum_k W_k x_i,t+k + b: W_k's gradient is the sum over t of output gradients times the input k apart."""
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    given = dict(zip(names, op.args, strict=False)) | op.kwargs
    x, weight, bias = (given.pop(name, None) for name in names[:3])
    stride, dilation = (_one(given.get(name, 1)) for name in ("stride", "dilation"))
    padding, groups, n = given.get("padding", 0), given.get("groups", 1), op.axes.n
    if not op.leading(x) or x.dim() != 3 or isinstance(padding, str):
        return NotImplemented
    pad, (outs, ins, taps) = _one(padding), weight.shape
    source = x.detach()

    def kernel(grad: Tensor) -> Tensor:
        """(N, *weight.shape)."""
        padded, length = F.pad(source, (pad, pad)), grad.shape[-1]
        b = grad.reshape(grad.shape[0], groups, outs // groups, length)
        parts = []
        for k in range(taps):
            at = k * dilation
            a = padded[..., at : at + stride * (length - 1) + 1 : stride].reshape(grad.shape[0], groups, ins, length)
            parts.append((b * a).sum(dim=-1, keepdim=True) if ins == 1 else b @ a.mT)
        return _by_trajectory(parts, n).reshape(n, outs, ins, taps)

    uses: dict[nn.Parameter, Callable[[Tensor], Tensor]] = {}
    for p in op.roots_of([weight]):
        uses[p] = lambda grad, p=p: pulled(weight, p, kernel(grad))  # type: ignore[misc]
    for p in op.roots_of([bias]) if bias is not None else ():
        uses[p] = lambda grad, p=p: pulled(  # type: ignore[misc]
            bias, p, grad.sum(dim=-1).reshape(n, -1, outs).sum(dim=1)
        )
    parameters = tuple(uses)

    def function(call: Call) -> dict[str, Use]:
        return {str(k): PerRow(uses[p]) for k, p in enumerate(parameters)}

    out = F.conv1d(x, weight.detach(), None if bias is None else bias.detach(), **given)
    return op.run(op.note, "joined", parameters, function, out, (source,))


def _by_trajectory(parts: list[Tensor], n: int) -> Tensor:
    """Taps side by side, summed over the rows of each trajectory."""
    import torch

    out = torch.stack(parts, dim=-1)
    return out.reshape(n, -1, *out.shape[1:]).sum(dim=1)


def _one(value: Any) -> int:
    return int(value[0]) if isinstance(value, (tuple, list)) else int(value)
