"""Estimators as scalars: from a student's logits to one scalar per estimator and trajectory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from kvar.rollouts.forward import token_logits
from kvar.rollouts.types import Rollouts

__all__ = ["Estimators", "token_log_probs"]

Weights: TypeAlias = Tensor | Callable[[Tensor], Tensor]


def token_log_probs(logits: Tensor, rollouts: Rollouts) -> Tensor:
    """(N, T) log pi(y_t | s_t), at least in float32, zero where masked."""
    precise = logits if logits.dtype == torch.float64 else logits.float()
    picked = precise.gather(-1, rollouts.tokens[..., None])[..., 0] - precise.logsumexp(dim=-1)
    return picked.masked_fill(~rollouts.mask, 0.0)


class Estimators:
    """E scalars per trajectory, for any subset of the trajectories.

    Args:
        rollouts: all N trajectories.
        weights: (E, N, T) token weights, or a callable from all logits (N, T, V) to (E, N), scalar [e, i] a function
            of row i alone.
    """

    def __init__(self, rollouts: Rollouts, weights: Weights) -> None:
        self.rollouts = rollouts
        self.weights = weights

    def logits(self, student: nn.Module, rows: Tensor) -> Tensor:
        """(n, T, V) from one forward pass over some rows."""
        return token_logits(student, self.rollouts[rows])

    def scalars(self, logits: Tensor, rows: Tensor) -> Tensor:
        """(E, n) scalars of some rows whose logits are given.

        Raises:
            ValueError: a callable whose result is not (E, N), or has no gradient.
        """
        if isinstance(self.weights, Tensor):
            log_probs = token_log_probs(logits, self.rollouts[rows])
            weights = self.weights[:, rows].to(log_probs).masked_fill(~self.rollouts.mask[rows], 0.0)
            return (weights * log_probs).sum(dim=-1)
        n = len(self.rollouts)
        whole = len(rows) == n and bool((rows == torch.arange(n, device=rows.device)).all())
        every = logits if whole else logits.new_zeros(n, *logits.shape[1:]).index_copy(0, rows, logits)
        result = self.weights(every)
        shape = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        if not isinstance(result, Tensor) or result.dim() != 2 or result.shape[1] != n:
            raise ValueError(f"weights(logits) must return (E, N) scalars, N = {n}; got {shape}.")
        if not result.requires_grad:
            raise ValueError(
                "weights(logits) returned scalars without a gradient: compute them from the logits, undetached."
            )
        return result[:, rows]

    def scores(self, logits: Tensor, rows: Tensor) -> Tensor:
        """(T, n): the log-probability of each token as an estimator of its own, for score norms."""
        return token_log_probs(logits, self.rollouts[rows]).T
