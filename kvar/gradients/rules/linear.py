"""``nn.Linear``, y = x W^T + b, hence also LoRA's adapters and language-model heads."""

from __future__ import annotations

from torch import nn

from kvar.gradients.rules.registry import rule
from kvar.gradients.rules.uses import Call, Outer, PerRow, Use

__all__ = ["linear"]


@rule(nn.Linear, parameters=("weight", "bias"))
def linear(call: Call) -> dict[str, Use]:
    """W_i = sum_t b_t a_t^T with a the layer's input; bias_i = sum_t b_t (summed over tokens before it is squared)."""
    return {
        "weight": Outer(call.rows(call.input), side=1),
        "bias": PerRow(lambda grad: call.rows(grad).sum(dim=1)),
    }
