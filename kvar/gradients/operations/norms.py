"""Functional norms: normalisation, then gain and bias elementwise."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from kvar.gradients.capture.axis import Axis
from kvar.gradients.operations.elementwise import broadcast
from kvar.gradients.operations.registry import Operation, operation

__all__ = ["group_norm", "layer_norm"]


@operation("layer_norm", "rms_norm")
def layer_norm(op: Operation) -> Any:
    """Y = normal(x) * w + b on the last axes."""
    shift = ("bias",) if op.name == "layer_norm" else ()
    names = ("input", "normalized_shape", "weight", *shift, "eps")
    given = dict(zip(names, op.args, strict=False)) | op.kwargs
    weight, bias = given.pop("weight", None), given.pop("bias", None)
    x = given.pop("input")
    if not op.leading(x):
        return NotImplemented
    return _scaled(op, getattr(F, op.name)(x, **given), weight, bias)


@operation("group_norm")
def group_norm(op: Operation) -> Any:
    """Y = normal(x) * w + b on the second axis."""
    given = dict(zip(("input", "num_groups", "weight", "bias", "eps"), op.args, strict=False)) | op.kwargs
    weight, bias = given.pop("weight", None), given.pop("bias", None)
    x = given.pop("input")
    if not op.leading(x):
        return NotImplemented
    ends = [1] * (x.dim() - 2)
    shaped = []
    for value in (weight, bias):
        if value is not None:
            value = op.alike(value, value.reshape(-1, *ends))
        shaped.append(value)
    return _scaled(op, F.group_norm(x, **given), *shaped)


def _scaled(op: Operation, normal: Tensor, weight: Tensor | None, bias: Tensor | None) -> Any:
    op.axes.mark(normal, Axis.LEADING)
    values = []
    for value in (weight, bias):
        if value is not None and op.common(value):
            value = broadcast(op, value)
            if value is None:
                return NotImplemented
        values.append(value)
    gain, shift = values
    out = normal if gain is None else normal * gain
    return op.run(lambda: out if shift is None else out + shift)
