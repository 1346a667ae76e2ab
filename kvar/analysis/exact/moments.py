"""Exact moments of a tabular policy gradient, summed over all responses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["ExactMoments", "row_gradients", "table_mean", "table_sq_norm"]


@dataclass(frozen=True)
class ExactMoments:
    """Moments of g, theory.md (5), with prompts drawn uniformly; float64, no sampling error.

    Attributes:
        mean: (P,), E g.
        trace: tr Cov(g), (8).
        bias: (P,), E g - g*, (7), with g* = E g of LLMR without a baseline, (6).
        within: E_x tr Cov(g | x), (9).
        between: tr Cov_x E[g | x], (9); within + between = trace.
        second_moment: E |g|^2.
    """

    mean: Tensor
    trace: float
    bias: Tensor
    within: float
    between: float
    second_moment: float

    @classmethod
    def of_prompts(cls, means: Tensor, second_moment: float, ideal: Tensor) -> ExactMoments:
        """From what is summed prompt by prompt.

        Args:
            means: (M, P), E[g | x = m] / M.
            second_moment: E |g|^2.
            ideal: (P,), g*.
        """
        mean = means.sum(dim=0)
        conditional, square = len(means) * float((means**2).sum()), float((mean**2).sum())
        return cls(
            mean, second_moment - square, mean - ideal, second_moment - conditional, conditional - square, second_moment
        )


def table_mean(weights: Tensor, rows: Tensor, tokens: Tensor, policy: Tensor) -> Tensor:
    """sum_{n,t} weights[n,t] grad log pi(tokens[n,t] | rows[n,t]) with respect to a table of logits.

    Args:
        weights: (N, T), zero where masked.
        rows: (N, T), the table row of each state.
        tokens: (N, T).
        policy: (S, V), the softmax of the table.

    Returns:
        (S, V), the gradient.
    """
    rows, flat = rows.flatten(), weights.flatten()
    out = torch.zeros_like(policy)
    out.index_put_((rows, tokens.flatten()), flat, accumulate=True)
    visits = torch.zeros(len(policy), dtype=policy.dtype).index_add_(0, rows, flat)
    return out - visits[:, None] * policy


def table_sq_norm(weights: Tensor, rows: Tensor, tokens: Tensor, policy: Tensor, block: int = 1 << 16) -> Tensor:
    """(N,) squared norm of each row's own gradient sum_t weights[n,t] s_nt; arguments as in :func:`table_mean`.

    Two tokens scored by one table row have <s, s'> = 1[y = y'] - pi(y) - pi(y') + |pi|^2; by different rows, 0.
    """
    norm = (policy**2).sum(dim=1)
    parts = []
    for start in range(0, len(weights), block):
        w, r, y = (x[start : start + block] for x in (weights, rows, tokens))
        p, same = policy[r, y], r[:, :, None] == r[:, None, :]
        inner = (y[:, :, None] == y[:, None, :]).double() - p[:, :, None] - p[:, None, :] + norm[r][:, :, None]
        parts.append((w[:, :, None] * w[:, None, :] * inner * same).sum(dim=(1, 2)))
    return torch.cat(parts)


def row_gradients(weights: Tensor, rows: Tensor, tokens: Tensor, policy: Tensor) -> Tensor:
    """(N, S V): each row's own gradient, dense; arguments as in :func:`table_mean`."""
    n, states = len(weights), len(policy)
    out = torch.zeros(n, *policy.shape, dtype=policy.dtype)
    trajectory = torch.arange(n)[:, None].expand_as(rows)
    out.index_put_((trajectory, rows, tokens), weights, accumulate=True)
    visits = torch.zeros(n, states, dtype=policy.dtype)
    visits.index_put_((trajectory, rows), weights, accumulate=True)
    return (out - visits[..., None] * policy).flatten(1)
