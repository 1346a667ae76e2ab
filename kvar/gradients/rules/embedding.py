"""``nn.Embedding`` and its subclasses: token embeddings, scaled ones, learned positions with or without an offset."""

from __future__ import annotations

from torch import Tensor, nn

from kvar.gradients.rules.registry import rule
from kvar.gradients.rules.uses import Call, Outer, Use

__all__ = ["embedding"]


@rule(nn.Embedding, parameters=("weight",), tap=True)
def embedding(call: Call) -> dict[str, Use]:
    """W_i = sum_t e(id_t) b_t^T with e one-hot; rows of the padding index get no gradient.

    The recorded call is that of ``torch.nn.functional.embedding`` inside the layer, so that an offset added to the ids
    before it, or a scale after it, needs no separate rule.
    """
    ids = call.rows(call.input.long(), keep=0)
    padding = call.kwargs.get("padding_idx")
    if padding is None:
        return {"weight": Outer(ids, side=0)}
    weight = call.module.get_parameter("weight")
    keep = ids.ne(padding % weight.shape[0]).unsqueeze(-1)

    def grad(b: Tensor) -> Tensor:
        return call.rows(b) * keep

    return {"weight": Outer(ids, side=0, grad=grad)}
