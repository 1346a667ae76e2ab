"""The interfaces of rewards: of sampled tokens, and of every token that could come next."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from kvar.rollouts.types import Rollouts

__all__ = ["NextTokenReward", "Reward", "SampledReward"]


class Reward(ABC):
    """A per-token reward u_t; immutable, with a short name that tables and records show."""

    @property
    @abstractmethod
    def name(self) -> str:
        """For instance ``gap``; without blanks, distinct for every setting."""


class NextTokenReward(Reward):
    """A reward u(x_t, a) of every next token a, from the logits of teacher and student at the state x_t.

    Sampled, it is u(x_t, y_t); its expectation ubar_t = sum_a pi(a | x_t) u(x_t, a), theory.md (21), and the exact
    immediate term sum_a u(x_t, a) grad pi(a | x_t), (23), follow from the table, in which u counts as a constant.
    """

    @abstractmethod
    def table(self, teacher: Tensor, student: Tensor) -> Tensor:
        """U(x, a) of every token a.

        Args:
            teacher: (..., V) logits, minus infinity outside the action set.
            student: (..., V) logits, likewise.

        Returns:
            (..., V); what it holds outside the action set does not matter.
        """

    def weighted(self, teacher: Tensor, student: Tensor) -> Tensor:
        """(..., V): pi(a) u(x, a), zero where pi is; to be overridden where pi cancels in u."""
        pi = student.softmax(dim=-1)
        return torch.where(pi > 0, pi * self.table(teacher, student), 0.0)


class SampledReward(Reward):
    """A reward that is known for the sampled tokens only: no expectation over the next token, no exact term."""

    @abstractmethod
    def sampled(self, rollouts: Rollouts) -> Tensor:
        """(N, T), finite on response tokens.

        Raises:
            ValueError: the reward's function gives another shape or a value that is not finite.
        """
