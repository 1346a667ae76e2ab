"""verl's optimal token baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from kvar.estimators.baselines.base import Baseline

if TYPE_CHECKING:
    from kvar.estimators.evidence import Evidence

__all__ = ["WProxy"]


@dataclass(frozen=True)
class WProxy(Baseline):
    """b_t = sum_i G_it W_it / sum_i W_it over the rollouts of a prompt.

    The proxy W_it = sum_{s<=t} (1 - 2 pi_s(y_s) + sum_a pi_s(a)^2) is |s|^2 at the logits, summed up to position t. A
    row's own return enters its baseline, which biases E[g] by a share of about 1/R with R rollouts. Source: verl's
    ``optimal_token_baseline`` (arXiv 2602.07078).
    """

    scope: Literal["row", "prompt", "batch"] = "prompt"
    logit_power: bool = True

    name = "w-proxy"

    def advantages(self, returns: Tensor, evidence: Evidence) -> Tensor:
        """See :class:`Baseline`; ValueError if no prompt has two rollouts."""
        keep = evidence.rollouts.mask
        label, count = evidence.groups(self.name)
        power = evidence.logit_power.to(returns).masked_fill(~keep, 0.0).cumsum(dim=1).masked_fill(~keep, 0.0)
        sums = returns.new_zeros(2, count, returns.shape[1])
        sums[0].index_add_(0, label, power * returns)
        sums[1].index_add_(0, label, power)
        shift = sums[0] / sums[1].where(sums[1] > 0, 1.0)
        return (returns - shift[label]).masked_fill(~keep, 0.0)
