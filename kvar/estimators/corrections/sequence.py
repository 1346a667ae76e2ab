"""The ratio of whole responses' probabilities."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kvar.estimators.corrections.base import Correction

__all__ = ["SequenceRatio"]


@dataclass(frozen=True)
class SequenceRatio(Correction):
    """Everything times prod_t pi(y_t | x_t) / mu(y_t | x_t), exact terms too.

    Unbiased for whatever the estimator is unbiased for on-policy, as long as mu allows all that pi does, and baselines
    depend on the prompt alone; its variance grows exponentially with the length. Source: importance sampling.
    """

    name = "sequence-ratio"

    def corrected(self, advantages: Tensor, log_ratio: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Correction`."""
        whole = log_ratio.sum(dim=1, keepdim=True).exp()
        return advantages * whole, whole.expand_as(advantages)
