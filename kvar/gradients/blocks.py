"""Inner products of per-trajectory gradients of one parameter, written out (:class:`Dense`) or in factors.

Shapes: N trajectories (or prompts), E estimators, T rows, (d, p) the parameter. Results are float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Block", "Dense", "Groups", "inner"]


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
        self.index = order[(start[:, None] + slots).clamp(max=len(labels) - 1)]


class Block(Protocol):
    """Per-trajectory gradients g_i^e of one parameter."""

    def norms(self) -> Tensor:
        """(E, N): |g_i^e|^2."""
        ...

    def pair(self) -> Tensor:
        """(E, E, N): <g_i^e, g_i^f>."""
        ...

    def total(self) -> Tensor:
        """(E, numel): sum_i g_i^e, laid out as this block sees fit, the same for every block of the parameter."""
        ...

    def cross(self, mean: Tensor) -> Tensor:
        """(E, E, N): <g_i^e, mean^f>, with ``mean`` laid out as ``total``."""
        ...

    def regroup(self, groups: Groups) -> Block:
        """The block of the M sums over prompts."""
        ...


def inner(x: Tensor, y: Tensor) -> Tensor:
    """(E, E, N) inner products of (N, E, ...) with (N, E, ...), trajectory by trajectory."""
    n, e = x.shape[:2]
    return torch.bmm(x.reshape(n, e, -1), y.reshape(n, e, -1).mT).permute(1, 2, 0).double()


@dataclass(frozen=True)
class Dense:
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
        m, r = groups.index.shape
        rows = self.grad[groups.index.flatten()].reshape(m, r, *self.grad.shape[1:])
        return Dense(torch.where(groups.valid[:, :, None, None], rows, 0).sum(dim=1))


def slices(n: int, each: int, cap: int) -> Iterator[slice]:
    """Runs of trajectories, ``each`` entries apiece, that stay below ``cap`` entries (at least one trajectory)."""
    step = max(1, cap // max(each, 1))
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))
