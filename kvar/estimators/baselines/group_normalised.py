"""GRPO's advantage: returns minus the mean of a prompt's rollouts, over their standard deviation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from kvar.estimators.baselines.base import Baseline

if TYPE_CHECKING:
    from kvar.estimators.evidence import Evidence

__all__ = ["GroupNormalised"]


@dataclass(frozen=True)
class GroupNormalised(Baseline):
    """A_t = (G_t - m) / sd over the R rollouts of a prompt, each rollout of the same weight.

    m = mean_i mean_t G_it and sd^2 = sum_i mean_t (G_it - m)^2 / (R - 1): for "score" GRPO's (R_i - mean) / std (arXiv
    2402.03300). Biased: m includes the row's own return (a factor 1 - 1/R for a score), and 1 / sd gives more weight to
    prompts whose rollouts differ less. Zero where all returns of a prompt are equal, or it has one rollout.
    """

    scope: Literal["row", "prompt", "batch"] = "prompt"

    name = "group-normalised"

    def advantages(self, returns: Tensor, evidence: Evidence) -> Tensor:
        """See :class:`Baseline`; ValueError if no prompt has two rollouts."""
        keep = evidence.rollouts.mask
        label, count = evidence.groups(self.name)
        length = keep.sum(dim=1)
        filled = (length > 0).to(returns)

        def by_group(values: Tensor) -> Tensor:
            return returns.new_zeros(count).index_add_(0, label, values)

        size = by_group(filled)
        mean = by_group(returns.sum(dim=1) / length.clamp(min=1)) / size.clamp(min=1)
        apart = (returns - mean[label, None]).masked_fill(~keep, 0.0)
        square = by_group(apart.square().sum(dim=1) / length.clamp(min=1))
        deviation = (square / (size - 1).clamp(min=1)).sqrt()
        known = (size > 1) & (deviation > 1e-12 * (1 + mean.abs()))
        return apart * (known / deviation.where(known, 1.0))[label, None]
