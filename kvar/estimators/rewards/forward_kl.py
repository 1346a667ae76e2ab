"""Forward KL, the teacher's cross-entropy, at the student's states."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kvar.estimators.rewards.base import NextTokenReward
from kvar.estimators.rewards.kl import log_ratio

__all__ = ["ForwardKL"]


@dataclass(frozen=True)
class ForwardKL(NextTokenReward):
    """u(x, a) = p(a | x) / pi(a | x): "forward-kl immediate exact" is grad of -KL(p || pi) at the visited states.

    sum_a u grad pi = sum_a p grad log pi, path by path. Sampled it is that of importance-weighted single tokens, with
    the same mean. Source: Hinton et al. 2015 (arXiv 1503.02531), on the student's samples as in GKD (arXiv 2306.13649).
    """

    name = "forward-kl"

    def table(self, teacher: Tensor, student: Tensor) -> Tensor:
        """The ratio."""
        return log_ratio(teacher, student).exp()

    def weighted(self, teacher: Tensor, student: Tensor) -> Tensor:
        """P, as pi cancels."""
        return teacher.softmax(dim=-1)
