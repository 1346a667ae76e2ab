"""The ratio of one token's probabilities, plain or cut at a cap."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kvar.estimators.corrections.base import Correction
from kvar.returns.kernels import short

__all__ = ["Ratio", "Truncated"]


@dataclass(frozen=True)
class Ratio(Correction):
    """Weights times rho_t = pi(y_t | x_t) / mu(y_t | x_t); exact terms, which sum over pi itself, are unchanged.

    Unbiased for the gradient of the immediate reward summed over the states that mu visits (Degris et al. 2012,
    arXiv 1205.4839), sampled, centred or exact alike; biased for grad J, since states and futures remain mu's.
    """

    name = "ratio"

    def corrected(self, advantages: Tensor, log_ratio: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Correction`."""
        return advantages * log_ratio.exp(), torch.ones_like(advantages)


@dataclass(frozen=True)
class Truncated(Correction):
    """As :class:`Ratio` with min(rho_t, cap): biased where the cap is reached, unbiased as ``ratio`` is elsewhere.

    Source: Ionides 2008; IMPALA (arXiv 1802.01561); ``tis`` of the reinforcement-learning trainers.

    Attributes:
        cap: the largest ratio, above 0.

    Raises:
        ValueError: the cap is not above 0.
    """

    cap: float = 2.0

    def __post_init__(self) -> None:
        if not self.cap > 0:
            raise ValueError(f"truncated: the cap must be above 0; got {self.cap!r}.")

    @property
    def name(self) -> str:
        """For instance ``truncated(2)``."""
        return f"truncated({short(self.cap)})"

    def corrected(self, advantages: Tensor, log_ratio: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Correction`."""
        return advantages * log_ratio.exp().clamp(max=self.cap), torch.ones_like(advantages)
