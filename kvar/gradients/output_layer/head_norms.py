"""Squared norms of the head's gradients, without a backward pass: for a probe at every step; theory.md (14)."""

from __future__ import annotations

import torch
from torch import Tensor

from kvar.gradients.output_layer.head_moments import kernel_of_scores
from kvar.rollouts.types import Rollouts

__all__ = ["output_layer_norms"]

_ROWS = 4
"""Trajectories measured together; few, so that short ones are not padded to the longest of the batch."""


@torch.no_grad()
def output_layer_norms(
    hidden: Tensor, logits: Tensor, rollouts: Rollouts, weights: Tensor, *, bias: bool = False
) -> Tensor:
    """(E, N): |g_i^e|^2 at the head, w_i^T (A o S)_i w_i of :mod:`kvar.gradients.output_layer.head_moments`.

    Besides a softmax of the logits and the products that make A and S, a block of trajectories costs a dozen small
    operations; nothing waits for a device but the lengths at the start and the result.

    Args:
        hidden: (N, T, p), the head's inputs that gave ``logits``.
        logits: (N, T, V), all of them; the rollouts' policy restricts them.
        rollouts: N trajectories.
        weights: (E, N, T) token weights.
        bias: include the head's bias.

    Returns:
        Float64 on the CPU.
    """
    mask, policy = rollouts.mask, rollouts.policy
    wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
    left = weights.to(wide).masked_fill(~mask, 0.0).transpose(0, 1)
    tokens = rollouts.tokens.masked_fill(~mask, 0)[..., None]
    minus = left.new_full((min(_ROWS, len(tokens)), *tokens.shape[1:]), -1.0)
    lengths, norms = rollouts.lengths.tolist(), []
    for start in range(0, len(lengths), _ROWS):
        rows = slice(start, start + _ROWS)
        part = (rows, slice(0, max(*lengths[rows], 1)))
        actions = logits[part] if policy is None else policy.restricted(logits[part])
        pi, drawn = actions.softmax(dim=-1, dtype=wide), tokens[part]
        residual = pi.scatter_add_(-1, drawn, minus[: len(drawn), : drawn.shape[1]])
        w = left[rows, :, part[1]]
        kernel = kernel_of_scores(hidden[part].to(wide), residual, bias)
        norms.append((torch.bmm(w, kernel) * w).sum(dim=-1))
    return torch.cat(norms).T.double().cpu()
