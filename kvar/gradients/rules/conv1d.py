"""``transformers.Conv1D`` (GPT-2), a linear layer whose weight is stored transposed: y = x W + b."""

from __future__ import annotations

from kvar.gradients.rules.registry import rule
from kvar.gradients.rules.uses import Call, Outer, PerRow, Use

__all__ = ["conv1d"]


@rule("Conv1D", parameters=("weight", "bias"))
def conv1d(call: Call) -> dict[str, Use]:
    """W_i = sum_t a_t b_t^T with a the layer's input; bias_i = sum_t b_t."""
    return {
        "weight": Outer(call.rows(call.input), side=0),
        "bias": PerRow(lambda grad: call.rows(grad).sum(dim=1)),
    }
