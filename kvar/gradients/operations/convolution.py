"""Convolutions along one axis, such as the depthwise ones before a state-space scan."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kvar.gradients.operations.registry import Operation, operation, pulled
from kvar.gradients.rules.uses import written_out

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
        taps_of_rows = torch.stack(parts, dim=-1)
        return taps_of_rows.reshape(n, -1, *taps_of_rows.shape[1:]).sum(dim=1).reshape(n, outs, ins, taps)

    of_weight = op.roots_of([weight])
    parameters = of_weight + (op.roots_of([bias]) if bias is not None else ())

    def gradient(p: nn.Parameter, grad: Tensor) -> Tensor:
        if any(p is root for root in of_weight):
            return pulled(weight, p, kernel(grad))
        return pulled(bias, p, grad.sum(dim=-1).reshape(n, -1, outs).sum(dim=1))

    out = F.conv1d(x, weight.detach(), None if bias is None else bias.detach(), **given)
    return op.run(op.note, "joined", parameters, written_out(parameters, gradient), out, (source,))


def _one(value: Any) -> int:
    return int(value[0]) if isinstance(value, (tuple, list)) else int(value)
