"""``Terms``: several estimators as coefficients of scores and of exact terms, which is all that gradients need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kvar.estimators.estimator import Estimator
from kvar.estimators.evidence import Evidence
from kvar.rollouts.types import Rollouts

__all__ = ["Terms"]


@dataclass(frozen=True)
class Terms:
    """E estimators on N trajectories: g_i^e = sum_t [ w_it^e s_it + sum_r k_it^{e,r} sum_a u^r(x_it, a) grad pi(a) ].

    Attributes:
        names: E.
        weights: (E, N, T), w.
        exact: name of a reward -> (E, N, T), k: 1 (or a ratio) for estimators with that reward's exact term, else 0.
        evidence: of the N trajectories.
        on: (E, N) bool, the trajectories that each estimator uses; None for all.
    """

    names: tuple[str, ...]
    weights: Tensor
    exact: Mapping[str, Tensor]
    evidence: Evidence
    on: Tensor | None = None

    @classmethod
    def of(cls, estimators: Sequence[Estimator], evidence: Evidence) -> Terms:
        """The terms of estimators.

        Raises:
            ValueError: none, two of one name, or evidence that lacks what one of them needs.
        """
        names = tuple(estimator.name for estimator in estimators)
        if not names or len(set(names)) < len(names):
            raise ValueError(f"estimators must be one or more, with distinct names; got {list(names)}.")
        coefficients = [estimator.coefficients(evidence) for estimator in estimators]
        shape = (len(names), *evidence.rollouts.mask.shape)
        exact = {
            e.reward.name: coefficients[0][0].new_zeros(shape)
            for e in estimators
            if e.immediate == "exact" and e.reward is not None
        }
        for number, (estimator, (_, coefficient)) in enumerate(zip(estimators, coefficients, strict=True)):
            if estimator.immediate == "exact" and estimator.reward is not None:
                exact[estimator.reward.name][number] = coefficient
        return cls(names, torch.stack([weights for weights, _ in coefficients]), exact, evidence)

    def check(self, rollouts: Rollouts) -> None:
        """Refuse rollouts other than the evidence's.

        Raises:
            ValueError: other tokens, mask or prompts.
        """
        mine = self.evidence.rollouts
        for name in ("prompt_ids", "prompt_mask", "tokens", "mask", "prompt_index"):
            ours, theirs = getattr(mine, name), getattr(rollouts, name)
            if ours.shape != theirs.shape or not torch.equal(ours.cpu(), theirs.cpu()):
                raise ValueError(f"the evidence was gathered from other rollouts: they differ in {name}. Gather anew.")
        if mine.policy != rollouts.policy:
            raise ValueError("the evidence was gathered from rollouts with another policy (action set). Gather anew.")

    def weighted(self, rows: Tensor, student: Tensor) -> dict[str, Tensor]:
        """Reward -> pi(a) u(x_t, a) of some trajectories, (n, T, V); see :meth:`Evidence.weighted`.

        Trajectories that no estimator has an exact term on, such as references, get zeros without a teacher's pass.
        """
        out = {}
        for name, coefficients in self.exact.items():
            used = (coefficients[:, rows.to(coefficients.device)] != 0).any(dim=2).any(dim=0)
            if bool(used.all()):
                out[name] = self.evidence.weighted(name, rows, student)
            else:
                out[name], kept = torch.zeros_like(student), used.to(student.device)
                out[name][kept] = self.evidence.weighted(name, rows[used.to(rows.device)], student[kept])
        return out
