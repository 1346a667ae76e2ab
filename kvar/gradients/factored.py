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
from functools import cached_property

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
        grads: E tensors (N, T, m).
        side: the matrix axis of ``fixed``.
    """

    fixed: Tensor
    grads: tuple[Tensor, ...]
    side: int

    @property
    def ids(self) -> bool:
        """Whether ``fixed`` stands for one-hot rows."""
        return not self.fixed.is_floating_point()

    @cached_property
    def grad(self) -> Tensor:
        """(N, E, T, m), in one piece."""
        return torch.stack(self.grads, dim=1)

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
        rows = self.fixed.reshape(n * t, k)
        return torch.stack([(rows @ matrix).view(n, t, -1) for matrix in matrices], dim=1)

    def total(self, size: int) -> Tensor:
        """(E, d, p): the sum over trajectories; ``size`` is the matrix's length on ``side``."""
        flat = [b.reshape(-1, b.shape[-1]) for b in self.grads]
        if self.ids:
            where = self.fixed.reshape(-1)
            summed = torch.stack([b.new_zeros(size, b.shape[1]).index_add_(0, where, b) for b in flat])
            return summed if self.side == 0 else summed.mT
        rows = self.fixed.reshape(-1, self.fixed.shape[-1])
        return torch.stack([rows.T @ b if self.side == 0 else b.T @ rows for b in flat])

    def written_out(self, size: int) -> Tensor:
        """(N, E, d, p)."""
        n, e, t, m = self.grad.shape
        if self.ids:
            place = torch.arange(n * e, device=self.grad.device).view(n, e, 1) * size
            where = (place + self.fixed[:, None]).reshape(-1)
            out = self.grad.new_zeros(n * e * size, m).index_add_(0, where, self.grad.reshape(-1, m))
            out = out.view(n, e, size, m)
            return out if self.side == 0 else out.mT
        if self.side == 1:
            return torch.bmm(self.grad.mT.reshape(n, e * m, t), self.fixed).view(n, e, m, -1)
        return torch.matmul(self.fixed.mT[:, None], self.grad)

    def __getitem__(self, rows: slice) -> Factor:
        return Factor(self.fixed[rows], tuple(b[rows] for b in self.grads), self.side)

    def estimator(self, e: int) -> Factor:
        """The factor of one estimator alone."""
        return Factor(self.fixed, self.grads[e : e + 1], self.side)


def _gram(u: Factor, v: Factor) -> Tensor:
    """(N, T_u, T_v): K = F_u F_v^T for factors on one side."""
    if u.ids and v.ids:
        return (u.fixed[:, :, None] == v.fixed[:, None, :]).to(u.grads[0].dtype)
    if not v.ids:
        return u.project(v.fixed[:, None])[:, 0].mT
    return v.project(u.fixed[:, None])[:, 0]


def _pair(u: Factor, v: Factor) -> Tensor:
    """(E, E, N): <U^e, V^f>."""
    if u.side == v.side:
        return inner(u.grad, torch.matmul(_gram(u, v)[:, None], v.grad))
    return inner(v.project(u.grad), u.project(v.grad).mT)


def _diagonal(u: Factor, v: Factor) -> Tensor:
    """(E, N): <U^e, V^e>."""
    out = []
    gram = _gram(u, v) if u.side == v.side else None
    for b, c in zip(u.grads, v.grads, strict=True):
        if gram is None:
            x, y = v.project(b[:, None])[:, 0], u.project(c[:, None])[:, 0].mT
        elif b.shape[1] <= b.shape[2]:
            x, y = gram, torch.bmm(b, c.mT)
        else:
            x, y = b, torch.bmm(gram, c)
        out.append((x * y).flatten(1).sum(dim=1, dtype=torch.float64))
    return torch.stack(out)


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
        return self.factors[0].grads[0].shape[0]

    @property
    def estimators(self) -> int:
        """E."""
        return len(self.factors[0].grads)

    def written_out(self, rows: slice = slice(None)) -> Dense:
        """The gradients of some trajectories, (n, E, d p)."""
        return _written_out([factor[rows] for factor in self.factors], self.shape)

    def norms(self) -> Tensor:
        """(E, N)."""
        if self._prefers_writing_out(norms=True):
            each = self.shape[0] * self.shape[1]
            parts = []
            for rows in slices(self.count, each, _CAP):
                some = [factor[rows] for factor in self.factors]
                one_by_one = [[factor.estimator(e) for factor in some] for e in range(self.estimators)]
                parts.append(torch.cat([_written_out(one, self.shape).norms() for one in one_by_one]))
            return torch.cat(parts, dim=1)
        terms = [
            (1 if u is v else 2) * _diagonal(u, v) for k, u in enumerate(self.factors) for v in self.factors[k:]
        ]
        return sum(terms[1:], terms[0])

    def pair(self) -> Tensor:
        """(E, E, N)."""
        if self._prefers_writing_out(norms=False):
            each = self.estimators * self.shape[0] * self.shape[1]
            return torch.cat([self.written_out(rows).pair() for rows in slices(self.count, each, _CAP)], dim=2)
        terms = []
        for k, u in enumerate(self.factors):
            for v in self.factors[k:]:
                part = _pair(u, v)
                terms.append(part if u is v else part + part.transpose(0, 1))
        return sum(terms[1:], terms[0])

    def pair_and_total(self) -> tuple[Tensor, Tensor]:
        """``pair`` and ``total``, sharing the products where gradients are written out."""
        e, size = self.estimators, self.shape[0] * self.shape[1]
        extra = self.count * size * e * (e + _TRAFFIC)  # the products themselves are those that the total needs
        if extra > self.count * self._gram_cost(norms=False):
            return self.pair(), self.total()
        pairs, total = [], torch.zeros((), dtype=self.factors[0].grads[0].dtype, device=self.factors[0].fixed.device)
        for rows in slices(self.count, e * size, _CAP):
            some = self.written_out(rows)
            pairs.append(some.pair())
            total = total + some.total()
        return torch.cat(pairs, dim=2), total

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
        out = []
        for factor in self.factors:
            grads = tuple(groups.gather(b).flatten(1, 2) for b in factor.grads)
            out.append(replace(factor, fixed=factor.fixed[groups.index].flatten(1, 2), grads=grads))
        return Factored(out, self.shape)

    def _prefers_writing_out(self, *, norms: bool) -> bool:
        """Whether writing the gradients out is estimated to cost less than Grams."""
        e, size = self.estimators, self.shape[0] * self.shape[1]
        cost = size * e * ((1 if norms else e) + _TRAFFIC)
        for u in self.factors:
            t, m = u.grads[0].shape[1:]
            cost += e * t * m * (1 if u.ids else u.fixed.shape[2])
        return cost < self._gram_cost(norms=norms)

    def _gram_cost(self, *, norms: bool) -> int:
        """Multiplications, per trajectory, of the inner products by Grams."""
        e, cost = self.estimators, 0
        for u in self.factors:
            t, m = u.grads[0].shape[1:]
            k = 1 if u.ids else u.fixed.shape[2]
            for v in self.factors:
                s = v.grads[0].shape[1]
                cost += t * s * (k + e * m + _TRAFFIC * (1 if norms else e)) + (0 if norms else e * e * t * m)
        return cost


def _written_out(factors: list[Factor], shape: tuple[int, int]) -> Dense:
    parts = [factor.written_out(shape[factor.side]) for factor in factors]
    return Dense(sum(parts[1:], parts[0]).flatten(2))


def _joined(factors: list[Factor]) -> Factor:
    if len(factors) == 1:
        return factors[0]
    grads = zip(*(f.grads for f in factors), strict=True)
    return Factor(
        torch.cat([f.fixed for f in factors], dim=1), tuple(torch.cat(b, dim=1) for b in grads), factors[0].side
    )
