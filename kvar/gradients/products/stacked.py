"""Per-trajectory gradients of a stack of matrices, one for each expert, used by that expert's tokens only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kvar.gradients.products.blocks import Block, Dense, Groups
from kvar.gradients.products.matrix import Factored

__all__ = ["Stacked"]


class Stacked(Block):
    """Per-trajectory gradients of a parameter (X, d, p), whose X matrices are used separately.

    Args:
        matrices: the gradients of each of the X matrices; None where no token reached it.
        shape: (X, d, p).
        sizes: N and E.
        like: a tensor with the gradients' dtype and device.
    """

    def __init__(
        self, matrices: Sequence[Factored | None], shape: tuple[int, int, int], sizes: tuple[int, int], like: Tensor
    ) -> None:
        self.matrices = list(matrices)
        self.shape = shape
        self.count, self.estimators = sizes
        self._like = like

    def norms(self) -> Tensor:
        """(E, N)."""
        return self._sum([m.norms() for m in self._used()], self.estimators, self.count)

    def pair(self) -> Tensor:
        """(E, E, N)."""
        return self._sum([m.pair() for m in self._used()], self.estimators, self.estimators, self.count)

    def total(self) -> Tensor:
        """(E, X d p)."""
        return torch.cat([self._empty() if m is None else m.total() for m in self.matrices], dim=1)

    def cross(self, mean: Tensor) -> Tensor:
        """(E, E, N)."""
        parts = mean.view(len(mean), self.shape[0], -1)
        crosses = [m.cross(parts[:, k].contiguous()) for k, m in enumerate(self.matrices) if m is not None]
        return self._sum(crosses, self.estimators, len(mean), self.count)

    def pair_and_total(self) -> tuple[Tensor, Tensor]:
        """``pair`` and ``total``."""
        both = [None if m is None else m.pair_and_total() for m in self.matrices]
        pair = self._sum([one[0] for one in both if one is not None], self.estimators, self.estimators, self.count)
        return pair, torch.cat([self._empty() if one is None else one[1] for one in both], dim=1)

    def regroup(self, groups: Groups) -> Stacked:
        """The block of the sums over prompts."""
        matrices = [None if m is None else m.regroup(groups) for m in self.matrices]
        return Stacked(matrices, self.shape, (len(groups.sizes), self.estimators), self._like)

    def written_out(self) -> Dense:
        """(N, E, X d p)."""
        empty = self._empty().expand(self.count, -1, -1)
        return Dense(torch.cat([empty if m is None else m.written_out().grad for m in self.matrices], dim=2))

    def _used(self) -> list[Factored]:
        return [m for m in self.matrices if m is not None]

    def _sum(self, parts: Sequence[Tensor], *shape: int) -> Tensor:
        return sum(parts, self._like.new_zeros(shape, dtype=torch.float64))

    def _empty(self) -> Tensor:
        return self._like.new_zeros(self.estimators, self.shape[1] * self.shape[2])
