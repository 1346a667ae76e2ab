"""The minimum-variance baseline at each position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from kvar.estimators.baselines.base import Baseline

if TYPE_CHECKING:
    from kvar.estimators.evidence import Evidence

__all__ = ["PositionOptimum"]


@dataclass(frozen=True)
class PositionOptimum(Baseline):
    """b_t = E[G_t W_t] / E[W_t] with W_t = |s_t|^2 of the output layer, over all trajectories.

    b_t minimises E[(G_t - b_t)^2 |s_t|^2] (Greensmith et al. 2004, position by position), which ignores the cross terms
    <s_t, s_u>. A constant leaves E[g] unchanged; estimated on the batch that it is subtracted from, it biases E[g] by
    O(1/N).
    """

    score_norms: bool = True

    name = "position-optimum"

    def advantages(self, returns: Tensor, evidence: Evidence) -> Tensor:
        """See :class:`Baseline`."""
        keep = evidence.rollouts.mask
        power = evidence.needed_score_norms(self.name).to(returns).masked_fill(~keep, 0.0)
        total = power.sum(dim=0)
        shift = (returns * power).sum(dim=0) / total.where(total > 0, 1.0)
        return (returns - shift).masked_fill(~keep, 0.0)
