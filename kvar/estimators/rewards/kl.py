"""The log ratio of teacher and student as a reward: reverse KL."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kvar.estimators.rewards.base import NextTokenReward

__all__ = ["LogRatio", "log_ratio"]


@dataclass(frozen=True)
class LogRatio(NextTokenReward):
    """u(x, a) = log p(a | x) - log pi(a | x), p the teacher's softmax; ubar = -KL(pi || p)(x).

    With all lags (K=1) unbiased for grad J_kl, J_kl = -KL(pi || p) over whole responses: u depends on the student too,
    but E[grad u_t] = -E[s_t] = 0 [derived]. "kl immediate" leaves the future out: sampled it is tinker's and slime's,
    centred vOPD's (arXiv 2605.07865), exact the gradient of -KL(pi || p)(x_t) at the visited states, path by path, and
    so TRL's distillation loss on the student's own samples.
    """

    name = "kl"

    def table(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Log p - log pi."""
        return log_ratio(teacher, student)

    def weighted(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Pi (log p - log pi), with one softmax of each."""
        log_pi = student.log_softmax(dim=-1)
        ratio, pi = teacher.log_softmax(dim=-1) - log_pi, log_pi.exp()
        return ratio.mul_(pi).masked_fill_(pi == 0, 0.0)


def log_ratio(teacher: Tensor, student: Tensor) -> Tensor:
    """(..., V): log p(a) - log pi(a) from logits; 0 where the student's is minus infinity."""
    ratio = teacher.log_softmax(dim=-1) - student.log_softmax(dim=-1)
    return torch.where(student == -torch.inf, 0.0, ratio)
