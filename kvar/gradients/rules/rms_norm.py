"""RMS normalisation in its variants: T5, Llama, Qwen, Gemma (scale 1 + w), torch's own; on any last axes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kvar.gradients.rules.registry import rule
from kvar.gradients.rules.uses import Call, PerRow, Use

__all__ = ["rms_norm"]


@rule(nn.RMSNorm, "*RMSNorm", "*T5LayerNorm", parameters=("weight",))
def rms_norm(call: Call) -> dict[str, Use]:
    """w_i = sum_t b_t * xhat_t.

    The output is affine in the weight, f(w) = f(0) + w * xhat, so xhat = f(1) - f(0), in the precision in which the
    variant computes it (most take the variance in float32 whatever the weights' precision).
    """
    weight = call.module.get_parameter("weight")

    @torch.no_grad()
    def with_weight(value: Tensor) -> Tensor:
        return torch.func.functional_call(call.module, {"weight": value}, call.args, call.kwargs)

    normal = with_weight(torch.ones_like(weight)) - with_weight(torch.zeros_like(weight))

    def per_row(grad: Tensor) -> Tensor:
        return call.rows(grad * normal, weight.dim()).sum(dim=1)

    return {"weight": PerRow(per_row)}
