"""The teacher's gap as a reward: KETCHUP's and LLMR's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kvar.estimators.rewards.base import NextTokenReward

__all__ = ["Gap"]


@dataclass(frozen=True)
class Gap(NextTokenReward):
    """u(x, a) = q(x, a) - V(x), the negative gap of theory.md (1).

    With all lags (K=1) unbiased for grad J of (6): the V_t that (4) leaves in has mean zero. Source: KETCHUP
    (arXiv 2504.19024), LLMR (arXiv 2409.12500).

    Attributes:
        value: hard or soft V.
    """

    value: Literal["max", "soft"] = "max"

    name = "gap"

    def table(self, teacher: Tensor, student: Tensor) -> Tensor:
        """F(a) - V, which no shift of the logits f changes."""
        best = teacher.amax(dim=-1, keepdim=True)
        below = teacher - best
        if self.value == "max":
            return below
        weight = below.exp()
        soft = torch.where(weight > 0, weight * below, 0.0).sum(dim=-1, keepdim=True) / weight.sum(dim=-1, keepdim=True)
        return below - soft
