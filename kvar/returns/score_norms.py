"""Squared norms of the tokens' scores at the output layer, in closed form."""

from __future__ import annotations

from torch import Tensor

from kvar.returns.precision import at_least_float32

__all__ = ["output_layer_score_norms"]


def output_layer_score_norms(hidden: Tensor, logits: Tensor, tokens: Tensor) -> Tensor:
    """|s_t|^2 of s_t = grad_W log pi(y_t | s_t) for the head's weight W; no backward pass.

    With logits W h_t the score is the outer product (onehot(y_t) - pi_t) h_t^T, so

        |s_t|^2 = |h_t|^2 ( 1 - 2 pi_t(y_t) + sum_a pi_t(a)^2 )

    which is the diagonal of theory.md (14) at the output layer.

    Args:
        hidden: (..., p), the head's inputs, after any scaling (as in T5 with tied embeddings).
        logits: (..., V), the head's outputs.
        tokens: (...) int64, the tokens y_t.

    Returns:
        (...), in the logits' dtype, or float32 for half precision.

    Examples:
        >>> import torch
        >>> output_layer_score_norms(torch.ones(1, 3), torch.zeros(1, 2), torch.tensor([0])).tolist()
        [1.5]
    """
    precise = at_least_float32(logits)
    p = precise.softmax(dim=-1)
    chosen = p.gather(-1, tokens[..., None])[..., 0]
    return hidden.to(precise.dtype).square().sum(dim=-1) * (1 - 2 * chosen + p.square().sum(dim=-1))
