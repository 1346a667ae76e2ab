"""Schulman's estimators of KL(pi || p), differentiated as losses on the sampled tokens.

With r = log p(y_t) - log pi(y_t): k1 = -r, k2 = r^2 / 2, k3 = exp(r) - 1 - r (joschu.net/blog/kl-approx.html). As
losses, their negative gradients are u_t s_t with u = -1, r and exp(r) - 1, which need not descend KL(pi || p).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kvar.estimators.rewards.base import NextTokenReward
from kvar.estimators.rewards.kl import log_ratio

__all__ = ["K1Loss", "K2Loss", "K3Loss"]


@dataclass(frozen=True)
class K1Loss(NextTokenReward):
    """u = -1: "k1-loss immediate" is -s_t, of mean zero: unbiased for zero only (arXiv 2512.21852)."""

    name = "k1-loss"

    def table(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Minus one."""
        return -torch.ones_like(student)


@dataclass(frozen=True)
class K2Loss(NextTokenReward):
    """u = log p - log pi: "k2-loss immediate" is "kl immediate", unbiased for the gradient of reverse KL per state."""

    name = "k2-loss"

    def table(self, teacher: Tensor, student: Tensor) -> Tensor:
        """The log ratio."""
        return log_ratio(teacher, student)


@dataclass(frozen=True)
class K3Loss(NextTokenReward):
    """u = p / pi - 1: "k3-loss immediate" is unbiased for the gradient of -KL(p || pi) at the visited states.

    That is forward KL, though k3 itself estimates reverse KL: E[(p / pi - 1) s_t | x_t] = sum_a p grad log pi
    [derived; theory.md (24)]. verl's default (docs/algo/opd.md).
    """

    name = "k3-loss"

    def table(self, teacher: Tensor, student: Tensor) -> Tensor:
        """P / pi - 1."""
        return torch.expm1(log_ratio(teacher, student))

    def weighted(self, teacher: Tensor, student: Tensor) -> Tensor:
        """P - pi."""
        return teacher.softmax(dim=-1) - student.softmax(dim=-1)
