"""Per-trajectory gradients of a matrix kept as factors; inner products by Grams or written out; theory.md (14).

A matrix enters a forward pass once or several times (a tied embedding is looked up and multiplied by). Its gradient is
a sum over these uses, see :mod:`kvar.gradients.products.factor`, and every cross term between two uses is taken:

    same side        <U_i^e, V_i^f> = < b_u^e , K b_v^f >,             K = F_u F_v^T, (T_u, T_v)
    opposite sides   <U_i^e, V_i^f> = < b_u^e F_v^T , (b_v^f F_u^T)^T >, both (T_u, T_v)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kvar.gradients.products.blocks import Block, Dense, Groups, gram, inner, slices
from kvar.gradients.products.factor import Factor, Scaled, joined
from kvar.gradients.products.token_gram import bilinear_forms, token_gram

__all__ = ["Factored"]

_CAP = 2**23
"""Entries of written-out gradients held at a time."""
_TRAFFIC = 28
"""Cost of writing an entry to memory and reading it back, in multiplications: Grams are weighed against writing out."""


class Factored(Block):
    """Per-trajectory gradients of one matrix as a sum of factors.

    Args:
        factors: its uses.
        shape: the matrix's shape (d, p).
    """

    def __init__(self, factors: Sequence[Factor], shape: tuple[int, int]) -> None:
        self.factors = joined(list(factors))
        self.shape = shape
        self.count, self.estimators = self.factors[0].sizes[:2]

    def written_out(self, rows: slice = slice(None)) -> Dense:
        """The gradients of some trajectories, (n, E, d p)."""
        return _written_out([factor[rows] for factor in self.factors], self.shape)

    def norms(self) -> Tensor:
        """(E, N)."""
        if self._prefers_writing_out(norms=True):
            parts = []
            for rows in slices(self.count, self.shape[0] * self.shape[1], _CAP):
                some = [factor[rows] for factor in self.factors]
                one_by_one = [[factor.estimator(e) for factor in some] for e in range(self.estimators)]
                parts.append(torch.cat([_written_out(one, self.shape).norms() for one in one_by_one]))
            return torch.cat(parts, dim=1)
        terms = [factor.norms() for factor in self.factors]
        terms += [2 * _diagonal(u, v) for k, u in enumerate(self.factors) for v in self.factors[k + 1 :]]
        return sum(terms[1:], terms[0])

    def pair(self) -> Tensor:
        """(E, E, N)."""
        if self._prefers_writing_out(norms=False):
            each = self.estimators * self.shape[0] * self.shape[1]
            return torch.cat([self.written_out(rows).pair() for rows in slices(self.count, each, _CAP)], dim=2)
        terms = [factor.pair() for factor in self.factors]
        for k, u in enumerate(self.factors):
            for v in self.factors[k + 1 :]:
                part = _pair(u, v)
                terms.append(part + part.transpose(0, 1))
        return sum(terms[1:], terms[0])

    def total(self) -> Tensor:
        """(E, d p)."""
        parts = [factor.total(self.shape[factor.side]) for factor in self.factors]
        return sum(parts[1:], parts[0]).flatten(1)

    def pair_and_total(self) -> tuple[Tensor, Tensor]:
        """``pair`` and ``total``, sharing the products where gradients are written out."""
        e, size = self.estimators, self.shape[0] * self.shape[1]
        if size * e * (e + _TRAFFIC) > self._gram_cost(norms=False):  # the total needs the products anyway
            return self.pair(), self.total()
        pairs, totals = [], None
        for rows in slices(self.count, e * size, _CAP):
            some = self.written_out(rows)
            pairs.append(some.pair())
            total = some.total()
            totals = total if totals is None else totals.add_(total)
        assert totals is not None
        return torch.cat(pairs, dim=2), totals

    def cross(self, mean: Tensor) -> Tensor:
        """(E, E, N)."""
        parts = [factor.cross(mean.view(-1, *self.shape)) for factor in self.factors]
        return sum(parts[1:], parts[0])

    def with_own_total(self, *, cross: bool) -> tuple[Tensor, Tensor | None] | None:
        """See :class:`Block`; by a Gram of all tokens, for a head alone or tied to an embedding."""
        heads = [factor for factor in self.factors if isinstance(factor, Scaled)]
        rest = [factor for factor in self.factors if not isinstance(factor, Scaled)]
        if len(heads) != 1 or len(rest) > 1 or any(not f.ids or f.side == heads[0].side for f in rest):
            return None
        (head,), e = heads, self.estimators
        n, _, t, d = head.sizes
        r, p = n * t, head.fixed.shape[2]
        used, place = rest[0].fixed.unique(return_inverse=True) if rest else (None, None)
        if not _fewer(r, d, p, (1 + cross) * e, 0 if used is None else len(used)):
            return None
        left, right, weights = head.fixed.flatten(0, 1), head.rows.flatten(0, 1), head.scales.flatten(1)
        to_head = token_gram(left, right, weights)  # <score_t, S_head^f>
        sums = (weights @ to_head.T).double()
        if used is None or place is None:
            return sums, _by_row(head, to_head) if cross else None
        looked_up = Factor(place, rest[0].grads, rest[0].side)
        table = looked_up.total(len(used))
        table = table if looked_up.side == 0 else table.mT  # (E, U, p)
        few = right[:, used]
        to_table = bilinear_forms(left, few, table)  # <score_t, S_embedding^f>
        mixed = (weights @ to_table.T).double()
        sums += mixed + mixed.T + gram(table.flatten(1))
        if not cross:
            return sums, None
        for w, into in zip(weights, table, strict=True):
            into += (few * w[:, None]).T @ left
        return sums, _by_row(head, to_head + to_table) + looked_up.cross(table if looked_up.side == 0 else table.mT)

    def regroup(self, groups: Groups) -> Factored:
        """The sums over prompts: the rows of a prompt's R trajectories concatenated, R T of them."""
        return Factored([factor.regroup(groups) for factor in self.factors], self.shape)

    def _prefers_writing_out(self, *, norms: bool) -> bool:
        """Whether writing the gradients out is estimated to cost less than Grams."""
        e, size = self.estimators, self.shape[0] * self.shape[1]
        cost = size * e * ((1 if norms else e) + _TRAFFIC)
        for factor in self.factors:
            _, _, t, m = factor.sizes
            cost += e * t * m * (1 if factor.ids else factor.fixed.shape[2])
        return cost < self._gram_cost(norms=norms)

    def _gram_cost(self, *, norms: bool) -> int:
        """Multiplications, per trajectory, of the inner products by Grams."""
        cost = 0
        for k, u in enumerate(self.factors):
            _, e, t, m = u.sizes
            cost += u.gram_cost() + t * (t * _TRAFFIC + (0 if norms else e * e * m))
            for v in self.factors[k + 1 :]:
                _, _, s, other = v.sizes
                cost += e * t * s * ((1 if v.ids else m) + (1 if u.ids else other) + _TRAFFIC)
        return cost


def _fewer(r: int, d: int, p: int, sums: int, used: int) -> bool:
    """Whether a Gram of r tokens (and ``used`` rows of the matrix) takes fewer products than sums of shape (d, p)."""
    return r * r * (d + p) // 2 + sums * r * p * used < sums * r * d * p


def _by_row(head: Scaled, values: Tensor) -> Tensor:
    """(E, E, N): sum_t w_it^e values_it^f, for (E, N T) values."""
    return inner(head.scales.transpose(0, 1), values.view(len(values), *head.scales.shape[1:]).transpose(0, 1))


def _pair(u: Factor, v: Factor) -> Tensor:
    """(E, E, N): <U^e, V^f> of two uses."""
    if u.side == v.side:
        return inner(u.grad, torch.matmul(u.gram(v)[:, None], v.grad))
    return inner(u.against_rows(v), v.against_rows(u).mT)


def _diagonal(u: Factor, v: Factor) -> Tensor:
    """(E, N): <U^e, V^e> of two uses, one estimator at a time."""
    pairs = [_pair(u.estimator(e), v.estimator(e)) for e in range(u.sizes[1])]
    return torch.cat([pair[0] for pair in pairs])


def _written_out(factors: list[Factor], shape: tuple[int, int]) -> Dense:
    parts = [factor.written_out(shape[factor.side]) for factor in factors]
    return Dense(sum(parts[1:], parts[0]).flatten(2))
