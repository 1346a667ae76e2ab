"""A comb with random teeth: unbiased for any rewards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from kvar.returns.kernels import Kernel, LagKernel, settle_integer

__all__ = ["Thinning"]

_MULTIPLIERS = (-7046029254386353131, -4658895280553007687, -7723592293110705685)
"""Odd 64-bit constants (the golden ratio's and SplitMix64's), as signed integers."""


@dataclass(frozen=True)
class Thinning(Kernel):
    """w_0 = 1, and each lag j >= 1 is kept with probability 1/k, weighted k, anew for every trajectory.

    E[w_j] = 1 and w is independent of the trajectory, so the estimator is unbiased for whatever the kernel of all lags
    (LLMR) is unbiased for; the draws add the variance (k - 1) E|sum_t u_{t+j} s_t|^2 a lag [derived]. Called with lags
    it gives the mean weights, all one.

    The draws depend only on the seed, the row's number in the batch and the lag: independent batches need different
    seeds.

    Attributes:
        k: one over the probability that a lag is kept, an integer of at least 1.
        seed: of the draws, 0 or more.

    Raises:
        ValueError: k or seed is not an integer in range.

    Examples:
        >>> Thinning(2)([0, 1, 2]).tolist(), Thinning(2).name, Thinning(4, seed=7).name
        ([1.0, 1.0, 1.0], 'thinning(2)', 'thinning(4, 7)')
        >>> sorted(set(Thinning(4).draws(50, 9)[:, 1:].flatten().tolist()))
        [0.0, 4.0]
    """

    k: int
    seed: int = 0

    def __post_init__(self) -> None:
        settle_integer(self, "k", 1)
        settle_integer(self, "seed", 0)

    @property
    def name(self) -> str:
        """``thinning(4)``, or ``thinning(4, 7)`` with a seed of 7."""
        return f"thinning({self.k})" if self.seed == 0 else f"thinning({self.k}, {self.seed})"

    def _weights(self, lags: Tensor, remaining: Tensor | None) -> Tensor:
        return torch.ones_like(lags)

    def draws(self, rows: int, lags: int, device: torch.device | str | None = None) -> Tensor:
        """(rows, lags) float64: the weights w_0, w_1, ... of each trajectory: w_0 = 1, the others 0 or k."""
        row, lag = torch.arange(rows, device=device)[:, None], torch.arange(lags, device=device)
        first, second, third = _MULTIPLIERS
        code = (row + 1) * first + (lag + 1) * second + _wrapped((self.seed + 1) * third)
        for shift, factor in ((30, second), (27, third), (31, 1)):
            code = (code ^ ((code >> shift) & (2 ** (64 - shift) - 1))) * factor
        uniform = ((code >> 11) & (2**53 - 1)).double() / 2**53
        weights = torch.where(uniform * self.k < 1, float(self.k), 0.0).double()
        weights[:, :1] = 1.0
        return weights

    def outcomes(self, lags: int) -> Iterator[tuple[float, LagKernel]]:
        """Every kernel that can be drawn over some lags, with its probability; 2^(lags - 1) of them.

        Example:
            >>> [(p, kernel.weights) for p, kernel in Thinning(4).outcomes(2)]
            [(0.75, (1.0, 0.0)), (0.25, (1.0, 4.0))]
        """
        for kept in product((0, 1), repeat=max(lags - 1, 0)):
            probability = 1.0
            for one in kept:
                probability *= (1 if one else self.k - 1) / self.k
            if probability:
                yield probability, LagKernel([1, *(self.k * one for one in kept)])


def _wrapped(number: int) -> int:
    """``number`` modulo 2^64, as a signed 64-bit integer."""
    return (number + 2**63) % 2**64 - 2**63
