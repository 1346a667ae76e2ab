"""T5's relative position bias: a table looked up by bucket, added to every trajectory's scores alike."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from kvar.gradients.rules.registry import rule
from kvar.gradients.rules.uses import Call, Outer, Use

__all__ = ["relative_bias"]


class _Ids(TorchFunctionMode):
    """Records the ids with which an embedding is looked up."""

    ids: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.embedding:
            self.ids = args[0]
        return func(*args, **(kwargs or {}))


@rule("T5Attention", "MT5Attention", parameters=("relative_attention_bias.weight",), method="compute_bias")
def relative_bias(call: Call) -> dict[str, Use]:
    """W_i = sum_{q,k} e(bucket_qk) b_qk^T with b the gradient of trajectory i's own copy of the (heads, q, k) bias.

    The bias has no batch axis: the engine repeats it over the trajectories before it is added, which gives every
    trajectory its own gradient. The buckets are the module's, looked up again.
    """
    with torch.no_grad(), _Ids() as seen:
        call.module.compute_bias(*call.args, **call.kwargs)  # type: ignore[operator]
    assert seen.ids is not None
    ids = seen.ids.reshape(1, -1).expand(call.n, -1)
    return {
        "relative_attention_bias.weight": Outer(ids, side=0, grad=lambda b: b.permute(0, 2, 3, 1).flatten(1, 2)),
    }
