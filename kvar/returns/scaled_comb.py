"""A comb whose teeth carry the weight of the lags between them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kvar.returns.kernels import Kernel, settle_integer

__all__ = ["ScaledComb"]


@dataclass(frozen=True)
class ScaledComb(Kernel):
    """w_0 = 1, then w_j = k where k divides j, else 0: each tooth stands for k lags.

    Where u_{t+j} s_t has the same mean at the k lags up to each tooth (a stationary process, far from the response's
    end) the mean is that of all lags; elsewhere it is biased for the gradient of J by the difference, theory.md (7).
    The sum of a plain comb shrinks as 1/k; this one keeps its scale [derived].

    Attributes:
        k: the distance of the teeth, an integer of at least 1.

    Raises:
        ValueError: k is not an integer of at least 1.

    Examples:
        >>> ScaledComb(2)([0, 1, 2, 3, 4]).tolist(), ScaledComb(2).name
        ([1.0, 0.0, 2.0, 0.0, 2.0], 'scaled-comb(2)')
    """

    k: int

    def __post_init__(self) -> None:
        settle_integer(self, "k", 1)

    @property
    def name(self) -> str:
        """For instance ``scaled-comb(4)``."""
        return f"scaled-comb({self.k})"

    def _weights(self, lags: Tensor, remaining: Tensor | None) -> Tensor:
        teeth = torch.where(lags % self.k == 0, float(self.k), 0.0)
        return torch.where(lags == 0, 1.0, teeth)
