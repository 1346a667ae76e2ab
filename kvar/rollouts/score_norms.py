"""Score norms of sampled tokens at the student's output layer, from one forward pass without gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kvar.returns.score_norms import output_layer_score_norms
from kvar.rollouts.forward import forward_inputs
from kvar.rollouts.modes import eval_mode
from kvar.rollouts.output_embedding import output_embedding
from kvar.rollouts.sharded import given_whole
from kvar.rollouts.trial.truth import check_rollouts
from kvar.rollouts.types import Rollouts

__all__ = ["score_norms"]

MAX_LOGITS = 2**25


@given_whole("student")
@torch.no_grad()
def score_norms(
    student: nn.Module, rollouts: Rollouts, *, vocabulary: int | None = None, max_logits: int = MAX_LOGITS
) -> Tensor:
    """|s_t|^2 of the output layer's weight for every response token, s_t = grad log pi(y_t | s_t).

    Of a weight tied to the input embedding only the use as output layer counts. A scale or bias between head and logits
    is ignored: a constant factor leaves a minimum-variance baseline unchanged.

    Args:
        student: seq2seq or causal model with an output embedding; measured in eval mode.
        rollouts: N responses of T tokens at most.
        vocabulary: normalise over the first this many tokens at most; default the rollouts' action set.
        max_logits: most logits of one forward pass (at least one response's).

    Returns:
        (N, T), zero where masked.

    Raises:
        ValueError: a model without an output embedding, or that :mod:`kvar.rollouts.trial.truth` refuses.
    """
    head: Any = output_embedding(student)
    if head is None:
        raise ValueError(
            f"{type(student).__name__} names no output embedding, so its score norms are unknown; choose another "
            "baseline than minimum-variance."
        )
    rollouts = rollouts.over(vocabulary)
    check_rollouts(student, rollouts)
    seen: list[Tensor] = []
    rows = max(1, max_logits // (len(head.weight) * max(rollouts.tokens.shape[1], 1)))
    parts = []
    with eval_mode(student), head.register_forward_pre_hook(lambda module, args: seen.append(args[0])):
        for start in range(0, len(rollouts), rows):
            part = rollouts[start : start + rows]
            inputs, align = forward_inputs(student, part)
            logits = align(student(**inputs).logits)
            logits = logits if part.policy is None else part.policy.restricted(logits)
            norms = output_layer_score_norms(align(seen.pop()), logits, part.tokens.masked_fill(~part.mask, 0))
            parts.append(norms.masked_fill(~part.mask, 0.0))
    return torch.cat(parts) if parts else torch.zeros(rollouts.tokens.shape, device=rollouts.tokens.device)
