"""Forward KL over the teacher's most probable tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kvar.estimators.rewards.base import NextTokenReward
from kvar.estimators.rewards.kl import log_ratio

__all__ = ["ForwardTopK"]


@dataclass(frozen=True)
class ForwardTopK(NextTokenReward):
    """u(x, a) = p(a | x) / pi(a | x) on S, the teacher's k most probable tokens, and 0 off S; nothing is renormalised.

    "forward-top-k(32) immediate exact" is grad of -sum_{a in S} p (log p - log pi) at the visited states, path by path.
    With k = V it is "forward-kl immediate exact". Source: verl's forward_kl_topk, without its clamps.

    Attributes:
        k: tokens in S; all where the action set has no more.

    Raises:
        ValueError: k below 1.
    """

    k: int

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"forward-top-k: k must be at least 1; got {self.k!r}.")

    @property
    def name(self) -> str:
        """For instance ``forward-top-k(32)``."""
        return f"forward-top-k({self.k})"

    def table(self, teacher: Tensor, student: Tensor) -> Tensor:
        """The ratio on S."""
        return torch.where(self._inside(teacher), log_ratio(teacher, student).exp(), 0.0)

    def weighted(self, teacher: Tensor, student: Tensor) -> Tensor:
        """P on S, as pi cancels."""
        return torch.where(self._inside(teacher), teacher.softmax(dim=-1), 0.0)

    def _inside(self, teacher: Tensor) -> Tensor:
        best = teacher.topk(min(self.k, teacher.shape[-1]), dim=-1).indices
        return torch.zeros_like(teacher, dtype=torch.bool).scatter_(-1, best, True)
