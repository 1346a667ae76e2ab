"""Gradients at the logits that are a weight a token times its score."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["TokenScores"]

_DIRECTIONS = 8
"""Random directions in which gradients are compared; each alone tells two apart with probability 1."""


class TokenScores:
    """The scores e_t = onehot(y_t) - pi_t of some tokens in a few random directions, instead of (B, T, V) numbers.

    Args:
        log_pi: (B, T, V) log-probabilities of the student.
        tokens: (B, T).
    """

    def __init__(self, log_pi: Tensor, tokens: Tensor) -> None:
        generator = torch.Generator().manual_seed(0)
        self.directions = torch.randn(log_pi.shape[-1], _DIRECTIONS, generator=generator).to(log_pi)
        self.scores = self.directions[tokens] - log_pi.exp() @ self.directions

    def weights(self, rows: Tensor) -> Tensor | None:
        """(B, T): w with rows_t = w_t e_t at every token; None where the rows are anything else.

        Args:
            rows: (B, T, V), zero at padding.
        """
        seen = rows.to(self.scores) @ self.directions
        power = self.scores.square().sum(dim=-1)
        w = (seen * self.scores).sum(dim=-1) / power.where(power > 0, 1.0)
        apart = (seen - w[..., None] * self.scores).abs().amax(dim=-1)
        size = seen.abs().amax(dim=-1)
        return w if bool((apart <= 1e-5 * size + 1e-6 * size.max()).all()) else None
