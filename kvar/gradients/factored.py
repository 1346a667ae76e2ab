"""Per-trajectory gradients of a matrix kept as factors, and their inner products by Grams or written out; theory.md (14).

A matrix W enters a forward pass once or several times ("uses": a tied embedding is looked up and multiplied by). Each
use adds sum_t fixed_it (x) b_it^e, where ``fixed`` (layer inputs, or token ids standing for one-hot rows) is shared by
all estimators and lies on one axis of W (``side``), and b^e is the gradient of the layer's output under estimator e.
All cross terms between uses are taken:

    same side        <U_i^e, V_i^f> = < b_u^e , K b_v^f >,                        K = F_u F_v^T, (T_u, T_v)
    opposite sides   <U_i^e, V_i^f> = < b_u^e F_v^T , (b_v^f F_u^T)^T >           both (T_u, T_v)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kvar.gradients.blocks import Dense, Groups, inner, slices

__all__ = ["Factor", "Factored"]

_CAP = 2**23
"""Entries of written-out gradients held at a time."""
_TRAFFIC = 16
"""Operations that one entry written to and read from memory is worth, in choosing between Gram and writing out."""


@dataclass(frozen=True)
class Factor:
    """One use of a matrix.

    Attributes:
        fixed: (N, T, k) dense, or (N, T) int64 ids.
        grad: (N, E, T, m).
        side: the matrix axis of ``fixed``.
    """

    fixed: Tensor
    grad: Tensor
    side: int

    @property
    def ids(self) -> bool:
        """Whether ``fixed`` stands for one-hot rows."""
        return not self.fixed.is_floating_point()

    def project(self, x: Tensor) -> Tensor:
        """(N, E, T', k) -> (N, E, T', T): inner products of x's rows with the fixed rows."""
        if self.ids:
            return x.gather(-1, self.fixed[:, None, None, :].expand(*x.shape[:3], -1))
        n, e, t, k = x.shape
        return torch.bmm(x.reshape(n, e * t, k), self.fixed.mT).reshape(n, e, t, -1)

    def through(self, matrices: Tensor) -> Tensor:
        """(E, d, p) matrices -> (N, E, T, m): fixed rows times each matrix."""
        matrices = matrices if self.side == 0 else matrices.mT  # (E, k, m)
        if self.ids:
            return matrices[:, self.fixed].transpose(0, 1)
        n, t, k = self.fixed.shape
        e, _, m = matrices.shape
        rows = self.fixed.reshape(n * t, k)
        return torch.stack([(rows @ matrix).reshape(n, t, m) for matrix in matrices], dim=1)

    def total(self, size: int) -> Tensor:
        """(E, d, p): the sum over trajectories; ``size`` is the matrix's length on ``side``."""
        n, e, t, m = self.grad.shape
        by_estimator = self.grad.transpose(0, 1).reshape(e, n * t, m)
        if self.ids:
            summed = self.grad.new_zeros(e, size, m).index_add_(1, self.fixed.reshape(-1), by_estimator)
            return summed if self.side == 0 else summed.mT
        rows = self.fixed.reshape(n * t, -1)
        if self.side == 0:
            return torch.stack([rows.T @ b for b in by_estimator])
        return torch.stack([b.T @ rows for b in by_estimator])

    def written_out(self, size: int) -> Tensor:
        """(N, E, d, p)."""
        n, e, t, m = self.grad.shape
        if self.ids:
            where = (torch.arange(n * e, device=self.grad.device).view(n, e, 1) * size + self.fixed[:, None]).reshape(-1)
            out = self.grad.new_zeros(n * e * size, m).index_add_(0, where, self.grad.reshape(-1, m))
            out = out.view(n, e, size, m)
            return out if self.side == 0 else out.mT
        if self.side == 1:
            return torch.bmm(self.grad.mT.reshape(n, e * m, t), self.fixed).view(n, e, m, -1)
        return torch.matmul(self.fixed.mT[:, None], self.grad)

    def __getitem__(self, rows: slice) -> Factor:
        return Factor(self.fixed[rows], self.grad[rows], self.side)


def _gram(u: Factor, v: Factor) -> Tensor:
    """(N, T_u, T_v): K = F_u F_v^T for factors on one side."""
    if u.ids and v.ids:
        return (u.fixed[:, :, None] == v.fixed[:, None, :]).to(u.grad.dtype)
    if not v.ids:
        return u.project(v.fixed[:, None])[:, 0].mT
    return v.project(u.fixed[:, None])[:, 0]


def _product(u: Factor, v: Factor, *, diagonal: bool) -> Tensor:
    """<U^e, V^f>: (E, E, N), or its diagonal (E, N)."""
    if u.side == v.side:
        gram = _gram(u, v)
        if diagonal and u is v and u.grad.shape[2] <= u.grad.shape[3]:
            terms = [(gram * (b @ b.mT)).flatten(1).sum(dim=1, dtype=torch.float64) for b in u.grad.unbind(1)]
            return torch.stack(terms)
        x, y = u.grad, torch.matmul(gram[:, None], v.grad)
    else:
        x, y = v.project(u.grad), u.project(v.grad).mT
    return (x * y).flatten(2).sum(dim=2, dtype=torch.float64).T if diagonal else inner(x, y)


class Factored:
    """Per-trajectory gradients of one matrix as a sum of factors.

    Args:
        factors: its uses; those of one kind and side are joined along T.
        shape: the matrix's shape.
    """

    def __init__(self, factors: Sequence[Factor], shape: tuple[int, int]) -> None:
        kinds: dict[tuple[bool, int], list[Factor]] = {}
        for factor in factors:
            kinds.setdefault((factor.ids, factor.side), []).append(factor)
        self.factors = [_joined(same) for same in kinds.values()]
        self.shape = shape

    @property
    def count(self) -> int:
        """N."""
        return self.factors[0].grad.shape[0]

    @property
    def estimators(self) -> int:
        """E."""
        return self.factors[0].grad.shape[1]

    def written_out(self, rows: slice = slice(None)) -> Dense:
        """The gradients of some trajectories, (n, E, d p)."""
        parts = [factor[rows].written_out(self.shape[factor.side]) for factor in self.factors]
        return Dense(sum(parts[1:], parts[0]).flatten(2))

    def norms(self) -> Tensor:
        """(E, N)."""
        if self.prefers_writing_out(norms=True):
            return torch.cat([self.written_out(rows).norms() for rows in self._slices()], dim=1)
        total = torch.zeros((), dtype=torch.float64)
        for k, u in enumerate(self.factors):
            for v in self.factors[k:]:
                total = (1 if u is v else 2) * _product(u, v, diagonal=True) + total.to(u.grad.device)
        return total

    def pair(self) -> Tensor:
        """(E, E, N)."""
        if self.prefers_writing_out(norms=False):
            return torch.cat([self.written_out(rows).pair() for rows in self._slices()], dim=2)
        total = torch.zeros((), dtype=torch.float64)
        for k, u in enumerate(self.factors):
            for v in self.factors[k:]:
                part = _product(u, v, diagonal=False)
                total = (part if u is v else part + part.transpose(0, 1)) + total.to(part.device)
        return total

    def total(self) -> Tensor:
        """(E, d p)."""
        parts = [factor.total(self.shape[factor.side]) for factor in self.factors]
        return sum(parts[1:], parts[0]).flatten(1)

    def cross(self, mean: Tensor) -> Tensor:
        """(E, E, N)."""
        matrices = mean.view(-1, *self.shape)
        parts = [inner(factor.grad, factor.through(matrices)) for factor in self.factors]
        return sum(parts[1:], parts[0])

    def regroup(self, groups: Groups) -> Factored:
        """A prompt's sum over its R trajectories: their rows one after another, R T of them."""
        m, r = groups.index.shape
        out = []
        for factor in self.factors:
            fixed = factor.fixed[groups.index].flatten(1, 2)
            grad = torch.where(groups.valid[:, :, None, None, None], factor.grad[groups.index], 0)
            out.append(replace(factor, fixed=fixed, grad=grad.transpose(1, 2).flatten(2, 3)))
        return Factored(out, self.shape)

    def prefers_writing_out(self, *, norms: bool) -> bool:
        """Whether writing the gradients out is estimated to cost less than Grams, per trajectory."""
        e, size = self.estimators, self.shape[0] * self.shape[1]
        pairs = e if norms else e * e
        gram = written = 0
        for u in self.factors:
            t, m = u.grad.shape[2:]
            k = 1 if u.ids else u.fixed.shape[2]
            written += e * t * m * (1 if u.ids else k)
            for v in self.factors:
                s = v.grad.shape[2]
                gram += t * s * (k + e * m + _TRAFFIC * (1 if norms else e)) + (0 if norms else pairs * t * m)
        written += size * (pairs + _TRAFFIC * e)
        return written < gram

    def _slices(self) -> list[slice]:
        return list(slices(self.count, self.estimators * self.shape[0] * self.shape[1], _CAP))


def _joined(factors: list[Factor]) -> Factor:
    if len(factors) == 1:
        return factors[0]
    return Factor(
        torch.cat([f.fixed for f in factors], dim=1), torch.cat([f.grad for f in factors], dim=2), factors[0].side
    )
