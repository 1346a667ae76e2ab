"""Inner products of per-trajectory gradients of one parameter, written out (:class:`Dense`) or in factors.

Shapes: N trajectories (or prompts), E estimators, T rows, (d, p) the parameter. Results are float64.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Block", "Dense", "Groups", "gram", "inner", "slices"]

_PIECE = 2**14
"""Entries whose inner products are summed in the parameters' precision; sums of more are in float64."""


class Groups:
    """A partition of N trajectories into M prompts, as a padded table of rows.

    Args:
        labels: (N,) int64, which prompt (0 to M - 1) each trajectory belongs to; none is empty.
    """

    def __init__(self, labels: Tensor) -> None:
        self.sizes = torch.bincount(labels)
        order = torch.argsort(labels, stable=True)
        start = self.sizes.cumsum(0) - self.sizes
        slots = torch.arange(int(self.sizes.max()), device=labels.device)
        self.valid = slots < self.sizes[:, None]
        self.full = bool(self.valid.all())
        self.index = order[(start[:, None] + slots).clamp(max=len(labels) - 1)]

    def gather(self, x: Tensor) -> Tensor:
        """(N, ...) -> (M, R, ...), zeros where a prompt has fewer trajectories than R."""
        rows = x[self.index]
        return rows if self.full else rows.masked_fill_(~self.valid.view(*self.valid.shape, *[1] * (x.dim() - 1)), 0.0)


class Block(ABC):
    """Per-trajectory gradients g_i^e of one parameter."""

    @abstractmethod
    def norms(self) -> Tensor:
        """(E, N): |g_i^e|^2."""

    @abstractmethod
    def pair(self) -> Tensor:
        """(E, E, N): <g_i^e, g_i^f>."""

    @abstractmethod
    def total(self) -> Tensor:
        """(E, numel): sum_i g_i^e, with the same layout in every block of the parameter."""

    @abstractmethod
    def cross(self, mean: Tensor) -> Tensor:
        """(E, E, N): <g_i^e, mean^f>, with ``mean`` laid out as ``total``."""

    @abstractmethod
    def regroup(self, groups: Groups) -> Block:
        """The block of the M sums over prompts."""

    @abstractmethod
    def written_out(self) -> Dense:
        """The gradients themselves."""

    def pair_and_total(self) -> tuple[Tensor, Tensor]:
        """``pair`` and ``total``, with shared products if that is cheaper."""
        return self.pair(), self.total()

    def with_own_total(self, *, cross: bool) -> tuple[Tensor, Tensor | None] | None:
        """(E, E) inner products of the block's totals S^e, and (E, E, N) <g_i^e, S^f> if ``cross``.

        None if ``total`` is the cheaper way to both.
        """
        return None


def gram(x: Tensor) -> Tensor:
    """(E, E) inner products of the rows of (E, K), float64."""
    e, k = x.shape
    whole = k - k % _PIECE
    pieces = x[:, :whole].view(e, -1, _PIECE).transpose(0, 1)
    rest = x[:, whole:]
    return torch.bmm(pieces, pieces.mT).sum(dim=0, dtype=torch.float64) + (rest @ rest.T).double()


def inner(x: Tensor, y: Tensor) -> Tensor:
    """(E, E, N) inner products of (N, E, ...) with (N, E, ...), trajectory by trajectory."""
    n, e = x.shape[:2]
    return torch.bmm(x.reshape(n, e, -1), y.reshape(n, e, -1).mT).permute(1, 2, 0).double()


@dataclass(frozen=True)
class Dense(Block):
    """Gradients written out: (N, E, numel)."""

    grad: Tensor

    def norms(self) -> Tensor:
        """(E, N)."""
        return self.grad.square().sum(dim=2, dtype=torch.float64).T

    def pair(self) -> Tensor:
        """(E, E, N)."""
        return inner(self.grad, self.grad)

    def total(self) -> Tensor:
        """(E, numel)."""
        return self.grad.sum(dim=0)

    def cross(self, mean: Tensor) -> Tensor:
        """(E, E, N)."""
        return (self.grad @ mean.T).permute(1, 2, 0).double()

    def regroup(self, groups: Groups) -> Dense:
        """Sums over the trajectories of each prompt."""
        return Dense(groups.gather(self.grad).sum(dim=1))

    def written_out(self) -> Dense:
        """The block itself."""
        return self


def slices(n: int, each: int, cap: int) -> Iterator[slice]:
    """Ranges of trajectories of ``each`` entries with at most ``cap`` entries together (one trajectory at least)."""
    step = max(1, cap // max(each, 1))
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))
