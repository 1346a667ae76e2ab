"""Reverse KL over the most probable tokens, renormalised, or with the rest as one token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kvar.estimators.rewards.base import NextTokenReward
from kvar.estimators.rewards.kl import log_ratio

__all__ = ["TopK"]


@dataclass(frozen=True)
class TopK(NextTokenReward):
    """Minus the derivative by pi(a) of reverse KL on S, the k tokens that student or teacher find most probable.

    Renormalised, KL(pi_S || p_S) with both divided by their sums over S: u(a) = (r'(a) - E_S[r']) / pi(S) on S, r' the
    log ratio of the renormalised, E_S under pi_S; 0 off S. With a tail, one token stands for all the others: u(a) =
    log(p / pi) on S, log(p(tail) / pi(tail)) off S. The choice of S is not differentiated. With the exact immediate
    term it is the gradient of minus that divergence at the visited states, which differs from reverse KL's by what S
    omits; with k = V it is "kl immediate exact" [derived]. Sources: TRL's SDFT, NeMo-RL, verl (top-k distillation).

    Attributes:
        k: tokens in S; all where the action set has no more.
        by: whose most probable tokens.
        tail: keep the rest as one token, in place of renormalising.

    Raises:
        ValueError: k below 1.
    """

    k: int
    by: Literal["student", "teacher"] = "student"
    tail: bool = False

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"top-k: k must be at least 1; got {self.k!r}.")

    @property
    def name(self) -> str:
        """``top-k(32)``, ``top-k-tail(32)``, ``teacher-top-k(32)`` or ``teacher-top-k-tail(32)``."""
        return f"{'teacher-' if self.by == 'teacher' else ''}top-k{'-tail' if self.tail else ''}({self.k})"

    def table(self, teacher: Tensor, student: Tensor) -> Tensor:
        """See the class."""
        ranked = student if self.by == "student" else teacher
        first = ranked.topk(min(self.k, ranked.shape[-1]), dim=-1).indices
        inside = torch.zeros_like(student, dtype=torch.bool).scatter_(-1, first, True) & (student > -torch.inf)
        if self.tail:
            rest = ~inside & (student > -torch.inf)
            tails = [
                logits.log_softmax(dim=-1).masked_fill(~rest, -torch.inf).logsumexp(dim=-1, keepdim=True)
                for logits in (teacher, student)
            ]
            return torch.where(inside, log_ratio(teacher, student), torch.where(rest, tails[0] - tails[1], 0.0))
        few, all_of = student.masked_fill(~inside, -torch.inf), teacher.masked_fill(~inside, -torch.inf)
        pi = few.softmax(dim=-1)
        ratio = log_ratio(all_of, few)
        mean = torch.where(inside, pi * ratio, 0.0).sum(dim=-1, keepdim=True)
        mass = student.log_softmax(dim=-1).masked_fill(~inside, -torch.inf).logsumexp(dim=-1, keepdim=True).exp()
        return torch.where(inside, (ratio - mean) / mass, 0.0)
