"""A rule's argument, a :class:`Call`, and its results: :class:`Outer`, :class:`PerRow` or :class:`PerExpert`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

__all__ = ["Call", "Outer", "PerExpert", "PerRow", "Use", "written_out"]


@dataclass(frozen=True)
class Call:
    """One recorded call of a layer on N trajectories.

    Attributes:
        module: the layer.
        args: its positional arguments.
        kwargs: its keyword arguments.
        n: N, the number of trajectories.
        shape: the output's shape; its first axis runs over trajectories (or over trajectories times positions).
    """

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    n: int
    shape: tuple[int, ...]

    @property
    def input(self) -> Tensor:
        """The first argument, positional or not."""
        return self.args[0] if self.args else next(iter(self.kwargs.values()))

    def rows(self, x: Tensor, keep: int = 1) -> Tensor:
        """``x`` as (N, T, *last ``keep`` axes); an ``x`` without trajectory axis (length 1) is repeated N times."""
        if x.shape[0] == 1 and self.n > 1:
            x = x.expand(self.n, *x.shape[1:])
        last = tuple(x.shape[x.dim() - keep :])
        return x.reshape(self.n, -1, *last)


@dataclass(frozen=True)
class Outer:
    """A matrix whose gradient for trajectory i is sum_t fixed_it (x) b_it, b the gradient of the layer's output.

    Attributes:
        fixed: (N, T, k) dense rows, or (N, T) int64 ids that stand for one-hot rows.
        side: the axis of the matrix on which ``fixed`` lies; b lies on the other.
        grad: from the output's gradient to b, (N, T, m); by default a reshape.
    """

    fixed: Tensor
    side: int
    grad: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class PerRow:
    """A small parameter, whose gradient is written out for every trajectory.

    Attributes:
        function: from the gradient of the layer's output (its shape) to (N, *parameter.shape).
    """

    function: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class PerExpert:
    """A stack of X matrices (X, d, p), each applied to its own rows: tokens of any trajectories, sorted by expert.

    Attributes:
        fixed: (S, k) rows.
        side: the axis of each matrix on which ``fixed`` lies; the gradient of the layer's output (S, m) on the other.
        counts: how many rows each of the X experts has.
        trajectory: (S,) int64, the trajectory of each row; ascending within an expert.
    """

    fixed: Tensor
    side: int
    counts: tuple[int, ...]
    trajectory: Tensor

    def padded(self, rows: Tensor, n: int) -> list[Tensor | None]:
        """Rows (S, m) by expert as (N, R, m), padded with zeros; R is its largest number of rows in a trajectory."""
        out: list[Tensor | None] = []
        for mine, place, most in self._places(n):
            if not most:
                out.append(None)
                continue
            table = rows.new_zeros(n * most, rows.shape[1])
            out.append(table.index_copy_(0, place, rows[mine]).view(n, most, -1))
        return out

    def _places(self, n: int) -> Iterator[tuple[slice, Tensor, int]]:
        start = 0
        for count in self.counts:
            mine = slice(start, start + count)
            owner = self.trajectory[mine]
            sizes = torch.bincount(owner, minlength=n)
            most = int(sizes.max()) if count else 0
            first = sizes.cumsum(0) - sizes
            yield mine, owner * most + torch.arange(count, device=owner.device) - first[owner], most
            start += count


Use: TypeAlias = Outer | PerRow | PerExpert
K = TypeVar("K")


def written_out(
    parameters: Sequence[K], gradient: Callable[[K, Tensor], Tensor]
) -> Callable[[Call], dict[str, PerRow | Outer | PerExpert]]:
    """The rule of parameters named "0", "1", ... whose gradients are written out.

    Args:
        parameters: what ``gradient`` takes to know them.
        gradient: (one of them, the output's gradient) -> (N, *parameter.shape).
    """
    return lambda call: {str(k): PerRow(partial(gradient, one)) for k, one in enumerate(parameters)}
