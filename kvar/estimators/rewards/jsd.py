"""Generalised Jensen-Shannon divergence at the student's states."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kvar.estimators.rewards.base import NextTokenReward
from kvar.returns.kernels import short

__all__ = ["JSD"]


@dataclass(frozen=True)
class JSD(NextTokenReward):
    """u(x, a) = (1 - beta) log(m / pi), m = beta p + (1 - beta) pi: minus the derivative of JSD_beta by pi(a).

    JSD_beta = beta KL(p || m) + (1 - beta) KL(pi || m), as in GKD (arXiv 2306.13649). "jsd(0.5) immediate exact" is the
    gradient of -JSD_beta at the visited states, path by path; sampled it has the same mean [derived].

    Attributes:
        beta: between 0 and 1, both excluded; at the ends it vanishes.

    Raises:
        ValueError: beta is not between 0 and 1.
    """

    beta: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.beta < 1:
            raise ValueError(
                f"jsd: beta must lie between 0 and 1; got {self.beta!r}. For the ends use 'kl' and 'forward-kl'."
            )

    @property
    def name(self) -> str:
        """For instance ``jsd(0.5)``."""
        return f"jsd({short(self.beta)})"

    def table(self, teacher: Tensor, student: Tensor) -> Tensor:
        """(1 - beta) (log m - log pi)."""
        log_p, log_pi = teacher.log_softmax(dim=-1), student.log_softmax(dim=-1)
        log_m = torch.logaddexp(log_p + math.log(self.beta), log_pi + math.log1p(-self.beta))
        return torch.where(student == -torch.inf, 0.0, (1 - self.beta) * (log_m - log_pi))
