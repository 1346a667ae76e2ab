"""``nn.LayerNorm``, y = xhat * w + b."""

from __future__ import annotations

from functools import cache

import torch.nn.functional as F
from torch import Tensor, nn

from kvar.gradients.rules.registry import rule
from kvar.gradients.rules.uses import Call, PerRow, Use

__all__ = ["layer_norm"]


@rule(nn.LayerNorm, parameters=("weight", "bias"))
def layer_norm(call: Call) -> dict[str, Use]:
    """w_i = sum_t b_t * xhat_t, bias_i = sum_t b_t."""
    layer = call.module
    assert isinstance(layer, nn.LayerNorm)
    axes = len(layer.normalized_shape)

    @cache
    def normal() -> Tensor:
        return F.layer_norm(call.input, layer.normalized_shape, None, None, layer.eps)

    def weight(grad: Tensor) -> Tensor:
        return call.rows(grad * normal(), axes).sum(dim=1)

    return {"weight": PerRow(weight), "bias": PerRow(lambda grad: call.rows(grad, axes).sum(dim=1))}
