"""The clipped surrogate's gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kvar.estimators.corrections.base import Correction
from kvar.returns.kernels import short

__all__ = ["PPOClip"]


@dataclass(frozen=True)
class PPOClip(Correction):
    """The gradient of min(rho A, clip(rho, 1 - eps, 1 + eps) A): rho_t A_t s_t, and 0 where the clip is the smaller.

    The clip is the smaller where A > 0 and rho > 1 + eps, or A < 0 and rho < 1 - eps. Where nothing is clipped the mean
    is that of ``ratio``; on-policy it changes nothing. Exact immediate terms have no sampled advantage to clip.
    Source: Schulman et al. 2017 (arXiv 1707.06347).

    Attributes:
        epsilon: above 0.

    Raises:
        ValueError: epsilon is not above 0.
    """

    epsilon: float = 0.2
    exact = False

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise ValueError(f"ppo-clip: epsilon must be above 0; got {self.epsilon!r}.")

    @property
    def name(self) -> str:
        """For instance ``ppo-clip(0.2)``."""
        return f"ppo-clip({short(self.epsilon)})"

    def corrected(self, advantages: Tensor, log_ratio: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Correction`."""
        ratio = log_ratio.exp()
        clipped = ((advantages > 0) & (ratio > 1 + self.epsilon)) | ((advantages < 0) & (ratio < 1 - self.epsilon))
        return torch.where(clipped, 0.0, advantages * ratio), torch.ones_like(advantages)
