"""Means of returns: of the batch, by position, of the other rollouts; and the scalar of least variance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from kvar.estimators.baselines.base import Baseline
from kvar.returns import batch_mean, leave_one_out, minimum_variance, position_mean

if TYPE_CHECKING:
    from kvar.estimators.evidence import Evidence

__all__ = ["BatchMean", "LeaveOneOut", "MinimumVariance", "PositionMean"]


@dataclass(frozen=True)
class BatchMean(Baseline):
    """:func:`kvar.returns.batch_mean`; biased by O(1/N)."""

    name = "batch-mean"

    def advantages(self, returns: Tensor, evidence: Evidence) -> Tensor:
        """See :class:`Baseline`."""
        keep = evidence.rollouts.mask
        return (returns - batch_mean(returns[None], keep)[0]).masked_fill(~keep, 0.0)


@dataclass(frozen=True)
class PositionMean(Baseline):
    """:func:`kvar.returns.position_mean`; biased by O(1/N)."""

    name = "position-mean"

    def advantages(self, returns: Tensor, evidence: Evidence) -> Tensor:
        """See :class:`Baseline`."""
        keep = evidence.rollouts.mask
        return (returns - position_mean(returns[None], keep)[0]).masked_fill(~keep, 0.0)


@dataclass(frozen=True)
class LeaveOneOut(Baseline):
    """:func:`kvar.returns.leave_one_out`, by position; unbiased for what the estimator without it is."""

    scope: Literal["row", "prompt", "batch"] = "prompt"

    name = "leave-one-out"

    def advantages(self, returns: Tensor, evidence: Evidence) -> Tensor:
        """See :class:`Baseline`."""
        keep = evidence.rollouts.mask
        shift = leave_one_out(returns[None], keep, evidence.rollouts.prompt_index)[0]
        return (returns - shift).masked_fill(~keep, 0.0)


@dataclass(frozen=True)
class MinimumVariance(Baseline):
    """:func:`kvar.returns.minimum_variance` with |s_t|^2 of the output layer; biased by O(1/N)."""

    score_norms: bool = True

    name = "minimum-variance"

    def advantages(self, returns: Tensor, evidence: Evidence) -> Tensor:
        """See :class:`Baseline`."""
        keep = evidence.rollouts.mask
        shift = minimum_variance(returns[None], evidence.needed_score_norms(self.name).to(returns), keep)[0]
        return (returns - shift).masked_fill(~keep, 0.0)
