"""The clipped surrogate's gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kvar.estimators.corrections.base import Correction

__all__ = ["PPOClip"]


@dataclass(frozen=True)
class PPOClip(Correction):
    """The gradient of min(rho A, clip(rho, 1 - eps, 1 + eps) A): rho_t A_t s_t, and 0 where the clip is the smaller.

    That is where A > 0 and rho > 1 + eps, or A < 0 and rho < 1 - eps. Unbiased for nothing but what ``ratio`` is, where
    nothing is clipped; on-policy it changes nothing. Source: Schulman et al. 2017 (arXiv 1707.06347). It clips the
    advantage of a sampled token, so that exact immediate terms have no such form.

    Attributes:
        epsilon: above 0.

    Raises:
        ValueError: another epsilon.
    """

    epsilon: float = 0.2
    exact = False

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise ValueError(f"ppo-clip: epsilon must be above 0; got {self.epsilon!r}.")

    @property
    def name(self) -> str:
        """For instance ``ppo-clip(0.2)``."""
        short = f"{self.epsilon:g}"
        return f"ppo-clip({short})" if float(short) == self.epsilon else f"ppo-clip({self.epsilon!r})"

    def corrected(self, advantages: Tensor, log_ratio: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Correction`."""
        ratio = log_ratio.exp()
        clipped = ((advantages > 0) & (ratio > 1 + self.epsilon)) | ((advantages < 0) & (ratio < 1 - self.epsilon))
        return torch.where(clipped, 0.0, advantages * ratio), torch.ones_like(advantages)
