"""Any function of the rollouts as a reward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kvar.estimators.rewards.base import SampledReward
from kvar.rollouts.types import Rollouts

__all__ = ["TokenReward"]


@dataclass(frozen=True)
class TokenReward(SampledReward):
    """u_t = function(rollouts)[i, t]: with all lags (K=1) unbiased for the gradient of E[sum_t u_t], theory.md (4').

    The function must not depend on the student's parameters.

    Attributes:
        label: the reward's name.
        function: rollouts -> (N, T).
    """

    label: str
    function: Callable[[Rollouts], Tensor]

    @property
    def name(self) -> str:
        """The label."""
        return self.label

    def sampled(self, rollouts: Rollouts) -> Tensor:
        """(N, T) float64, zero where masked.

        Raises:
            ValueError: another shape, or a number that is not finite.
        """
        given = self.function(rollouts)
        shape = tuple(rollouts.tokens.shape)
        if not isinstance(given, Tensor) or tuple(given.shape) != shape:
            got = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
            raise ValueError(f"reward {self.label!r} must give a tensor of shape (N, T) = {shape}; got {got}.")
        bad = ~given.isfinite() & rollouts.mask
        if bool(bad.any()):
            row, position = (int(i) for i in bad.nonzero()[0])
            raise ValueError(
                f"reward {self.label!r} is {float(given[row, position])} at row {row}, position {position}: it must be "
                "finite on response tokens."
            )
        return torch.where(rollouts.mask, given.detach().double(), 0.0)
