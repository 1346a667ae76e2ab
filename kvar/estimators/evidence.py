"""``Evidence``: what estimators need from student and teacher for some trajectories."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kvar.estimators.nearest import nearest
from kvar.estimators.rewards import NextTokenReward, Reward
from kvar.returns import TokenValues
from kvar.rollouts.types import Rollouts

__all__ = ["MAX_LOGITS", "Evidence"]

MAX_LOGITS = 2**24
"""Most of the teacher's logits in memory at a time, if one trajectory has no more."""


@dataclass(frozen=True)
class Evidence:
    """Rewards of N trajectories, from one pass of teacher and student; :func:`kvar.estimators.gather` makes it.

    It is valid for the student as it was then: gather again after a training step.

    Attributes:
        rollouts: the N trajectories.
        rewards: name -> reward.
        sampled: name -> (N, T) float64, u_t of the sampled tokens, zero where masked.
        expected: name -> (N, T) float64, ubar_t of theory.md (21), for rewards of every next token.
        log_probs: (N, T) float64, the student's log pi(y_t | x_t).
        logit_power: (N, T) float64, 1 - 2 pi(y_t) + sum_a pi(a)^2, the score's squared norm at the logits.
        values: the teacher's q and V, which (4) needs; None without a teacher.
        score_norms: (N, T), |s_t|^2 at the output layer, where asked for.
        teacher_logits: some rollouts -> the teacher's (n, T, V) logits; None without a teacher.
    """

    rollouts: Rollouts
    rewards: Mapping[str, Reward]
    sampled: Mapping[str, Tensor]
    expected: Mapping[str, Tensor]
    log_probs: Tensor
    logit_power: Tensor
    values: TokenValues | None = None
    score_norms: Tensor | None = None
    teacher_logits: Callable[[Rollouts], Tensor] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        """N."""
        return len(self.rollouts)

    def reward(self, name: str, *, expected: bool = False) -> Tensor:
        """(N, T): u_t, or ubar_t, of a reward.

        Raises:
            ValueError: the reward was not gathered, or has no expectation.
        """
        held = self.expected if expected else self.sampled
        if name not in self.sampled:
            raise ValueError(
                f"the evidence holds no reward {name!r} but {', '.join(self.sampled) or 'none'}"
                f"{nearest(name, self.sampled)}: name it to gather (rewards=, estimators=, or score= for a score)."
            )
        if name not in held:
            raise ValueError(f"reward {name!r} is known for sampled tokens alone: it has no expectation.")
        return held[name]

    def weighted(self, name: str, rows: Tensor, student: Tensor) -> Tensor:
        """pi(a) u(x_t, a) of some trajectories, from the teacher's logits, a block of them at a time.

        Args:
            name: of a reward of every next token.
            rows: (n,) numbers of the trajectories.
            student: (n, t, V) their student logits over the action set, at the first t positions.

        Returns:
            (n, t, V), zero where masked and outside the action set.
        """
        reward = self.rewards[name]
        assert isinstance(reward, NextTokenReward) and self.teacher_logits is not None
        out = torch.empty_like(student)
        size = max(1, MAX_LOGITS // max(student[:1].numel(), 1))
        for start in range(0, len(rows), size):
            block = slice(start, start + size)
            some = self.rollouts[rows[block].to(self.rollouts.tokens.device)].until(student.shape[1])
            with torch.no_grad():
                teacher = self.teacher_logits(some).to(student.device, student.dtype)
                weighted = reward.weighted(teacher, student[block].detach())
                out[block] = torch.where(some.mask.to(student.device)[..., None], weighted, 0.0)
        return out

    def table(self, name: str, some: Rollouts, student: Tensor) -> Tensor:
        """(n, T, V): u(x_t, a) itself, of trajectories whose student logits are given.

        Args:
            name: of a reward of every next token.
            some: n trajectories.
            student: (n, T, V) over the action set.
        """
        reward = self.rewards[name]
        assert isinstance(reward, NextTokenReward) and self.teacher_logits is not None
        with torch.no_grad():
            teacher = self.teacher_logits(some).to(student.device, student.dtype)
            return reward.table(teacher, student.detach())

    def needed_score_norms(self, baseline: str) -> Tensor:
        """(N, T), measured |s_t|^2.

        Raises:
            ValueError: they were not gathered.
        """
        if self.score_norms is None:
            raise ValueError(f"baseline {baseline!r} needs score norms: gather(..., score_norms=True).")
        return self.score_norms

    def groups(self, baseline: str) -> tuple[Tensor, int]:
        """(N,) number of each trajectory's prompt, and how many prompts there are.

        Raises:
            ValueError: no prompt with two rollouts.
        """
        prompts, label = self.rollouts.prompt_index.unique(return_inverse=True)
        if len(prompts) == len(label):
            raise ValueError(
                f"baseline {baseline!r} needs two or more rollouts of a prompt; every prompt here has one."
            )
        return label, len(prompts)

    def log_ratio(self, correction: str) -> Tensor:
        """(N, T): log pi(y_t | x_t) - log mu(y_t | x_t), mu the behaviour policy; zero where masked.

        Raises:
            ValueError: the rollouts hold no probabilities of the policy that drew them.
        """
        mask, behaviour = self.rollouts.mask, self.rollouts.log_probs
        drawn = behaviour[mask]
        if drawn.numel() and (not bool(drawn.isfinite().all()) or not bool((drawn != 0).any())):
            what = "all zero" if bool(drawn.isfinite().all()) else "not finite"
            raise ValueError(
                f"correction {correction!r} needs Rollouts.log_probs, log mu(y_t) of the policy that drew each token; "
                f"they are {what}. Record them while sampling (kvar.rollouts.sample does), or leave the correction out."
            )
        return torch.where(mask, self.log_probs - behaviour.to(self.log_probs), 0.0)
