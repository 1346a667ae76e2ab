"""One use of a matrix in a forward pass: fixed rows on one side, output gradients of E estimators on the other.

The gradient of trajectory i is U_i^e = sum_t fixed_it (x) b_it^e. A :class:`Factor` holds b^e for every estimator. In a
:class:`Scaled` factor b_it^e = w_it^e r_it, as at a language-model head under token weights, so that inner products of
rows are taken once for all estimators.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from kvar.gradients.products.blocks import Groups, inner

__all__ = ["Factor", "Scaled", "joined"]


class Factor:
    """One use, with the output gradients of every estimator.

    Args:
        fixed: (N, T, k) dense, or (N, T) int64 ids that stand for one-hot rows.
        grads: E tensors (N, T, m).
        side: the matrix axis on which ``fixed`` lies.
    """

    def __init__(self, fixed: Tensor, grads: Sequence[Tensor], side: int) -> None:
        self.fixed = fixed
        self.side = side
        self._grads = tuple(grads)

    @property
    def ids(self) -> bool:
        """Whether ``fixed`` stands for one-hot rows."""
        return not self.fixed.is_floating_point()

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """(N, E, T, m)."""
        n, t, m = self._grads[0].shape
        return n, len(self._grads), t, m

    @property
    def grads(self) -> tuple[Tensor, ...]:
        """E tensors (N, T, m)."""
        return self._grads

    @cached_property
    def grad(self) -> Tensor:
        """(N, E, T, m), in one piece."""
        return torch.stack(self.grads, dim=1)

    def __getitem__(self, rows: slice) -> Factor:
        return Factor(self.fixed[rows], [b[rows] for b in self._grads], self.side)

    def estimator(self, e: int) -> Factor:
        """The factor of one estimator alone."""
        return Factor(self.fixed, self._grads[e : e + 1], self.side)

    def regroup(self, groups: Groups) -> Factor:
        """The rows of a prompt's trajectories concatenated."""
        fixed = self.fixed[groups.index].flatten(1, 2)
        return Factor(fixed, [groups.gather(b).flatten(1, 2) for b in self._grads], self.side)

    def gram(self, other: Factor) -> Tensor:
        """(N, T, T'): inner products of the fixed rows with another factor's, on the same side."""
        if self.ids and other.ids:
            return (self.fixed[:, :, None] == other.fixed[:, None, :]).to(self._dtype)
        if other.ids:
            return other.project(self.fixed[:, None])[:, 0]
        return self.project(other.fixed[:, None])[:, 0].mT

    def project(self, x: Tensor) -> Tensor:
        """(N, E, T', k) -> (N, E, T', T): inner products of x's rows with the fixed rows."""
        if self.ids:
            return x.gather(-1, self.fixed[:, None, None, :].expand(*x.shape[:3], -1))
        n, e, t, k = x.shape
        return torch.bmm(x.reshape(n, e * t, k), self.fixed.mT).reshape(n, e, t, -1)

    def against_rows(self, other: Factor) -> Tensor:
        """(N, E, T, T'): output gradients times the fixed rows of a factor on the opposite side."""
        return other.project(self.grad)

    def pair(self) -> Tensor:
        """(E, E, N): <U^e, U^f>."""
        return inner(self.grad, torch.matmul(self.gram(self)[:, None], self.grad))

    def norms(self) -> Tensor:
        """(E, N): |U^e|^2."""
        gram = self.gram(self)
        t, m = self.sizes[2:]
        out = []
        for b in self.grads:
            x, y = (gram, torch.bmm(b, b.mT)) if t <= m else (b, torch.bmm(gram, b))
            out.append((x * y).flatten(1).sum(dim=1, dtype=torch.float64))
        return torch.stack(out)

    def total(self, size: int) -> Tensor:
        """(E, d, p): the sum over trajectories; ``size`` is the matrix's length on ``side``."""
        flat = [b.reshape(-1, b.shape[-1]) for b in self.grads]
        if self.ids:
            where = self.fixed.reshape(-1)
            summed = torch.stack([b.new_zeros(size, b.shape[1]).index_add_(0, where, b) for b in flat])
            return summed if self.side == 0 else summed.mT
        rows = self.fixed.reshape(-1, self.fixed.shape[-1])
        return torch.stack([rows.T @ b if self.side == 0 else b.T @ rows for b in flat])

    def cross(self, matrices: Tensor) -> Tensor:
        """(E, E, N): <U^e, matrix^f> for (E, d, p) matrices."""
        return inner(self.grad, torch.stack([self._through(matrix) for matrix in matrices], dim=1))

    def written_out(self, size: int) -> Tensor:
        """(N, E, d, p)."""
        n, e, _, m = self.sizes
        if self.ids:
            place = torch.arange(n * e, device=self.fixed.device).view(n, e, 1) * size
            where = (place + self.fixed[:, None]).reshape(-1)
            out = self.grad.new_zeros(n * e * size, m).index_add_(0, where, self.grad.reshape(-1, m))
            out = out.view(n, e, size, m)
            return out if self.side == 0 else out.mT
        shape = (m, self.fixed.shape[2]) if self.side == 1 else (self.fixed.shape[2], m)
        out = self.fixed.new_empty(e, n, *shape)
        for b, into in zip(self.grads, out, strict=True):
            a, c = (b, self.fixed) if self.side == 1 else (self.fixed, b)
            torch.bmm(a.mT, c, out=into)
        return out.transpose(0, 1)

    def gram_cost(self) -> int:
        """Multiplications, per trajectory, of ``pair`` (of ``norms``, but for the last step)."""
        _, e, t, m = self.sizes
        return t * t * ((1 if self.ids else self.fixed.shape[2]) + e * m)

    @property
    def _dtype(self) -> torch.dtype:
        return self._grads[0].dtype

    def _through(self, matrix: Tensor) -> Tensor:
        """(d, p) -> (N, T, m): fixed rows times a matrix."""
        matrix = matrix if self.side == 0 else matrix.T  # (k, m)
        if self.ids:
            return matrix[self.fixed]
        n, t, k = self.fixed.shape
        return (self.fixed.reshape(n * t, k) @ matrix).view(n, t, -1)


class Scaled(Factor):
    """One use whose output gradients are one array of rows, scaled differently by each estimator.

    Args:
        fixed: (N, T, k), dense.
        rows: (N, T, m).
        scales: (E, N, T).
        side: the matrix axis on which ``fixed`` lies.
    """

    def __init__(self, fixed: Tensor, rows: Tensor, scales: Tensor, side: int) -> None:
        super().__init__(fixed, (rows,), side)
        self.rows = rows
        self.scales = scales

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """(N, E, T, m)."""
        n, t, m = self.rows.shape
        return n, len(self.scales), t, m

    @property
    def grads(self) -> tuple[Tensor, ...]:
        """E tensors (N, T, m), computed at each access."""
        return tuple(self.rows * w[..., None] for w in self.scales)

    def __getitem__(self, rows: slice) -> Factor:
        return Scaled(self.fixed[rows], self.rows[rows], self.scales[:, rows], self.side)

    def estimator(self, e: int) -> Factor:
        """The factor of one estimator alone."""
        return Scaled(self.fixed, self.rows, self.scales[e : e + 1], self.side)

    def regroup(self, groups: Groups) -> Factor:
        """The rows of a prompt's trajectories concatenated."""
        scales = torch.stack([groups.gather(w).flatten(1, 2) for w in self.scales])
        fixed = self.fixed[groups.index].flatten(1, 2)
        return Scaled(fixed, self.rows[groups.index].flatten(1, 2), scales, self.side)

    def against_rows(self, other: Factor) -> Tensor:
        """(N, E, T, T'): output gradients times the fixed rows of a factor on the opposite side."""
        return other.project(self.rows[:, None]) * self._by_row[..., None]

    def pair(self) -> Tensor:
        """(E, E, N): w^e (F F^T o R R^T) w^f."""
        return inner(self._by_row, torch.bmm(self._by_row, self._kernel()))

    def norms(self) -> Tensor:
        """(E, N)."""
        scales = self._by_row
        return (scales * torch.bmm(scales, self._kernel())).sum(dim=2, dtype=torch.float64).T

    def total(self, size: int) -> Tensor:
        """(E, d, p): the smaller side is scaled."""
        flat = self.rows.reshape(-1, self.rows.shape[-1])
        fixed = self.fixed.reshape(-1, self.fixed.shape[-1])
        out = []
        for w in self.scales.flatten(1):
            a, b = (fixed * w[:, None], flat) if fixed.shape[1] <= flat.shape[1] else (fixed, flat * w[:, None])
            out.append(a.T @ b if self.side == 0 else b.T @ a)
        return torch.stack(out)

    def cross(self, matrices: Tensor) -> Tensor:
        """(E, E, N): a scalar per row and matrix, then the scales."""
        per_row = torch.stack([(self.rows * self._through(matrix)).sum(dim=-1) for matrix in matrices], dim=1)
        return inner(self._by_row, per_row)

    def gram_cost(self) -> int:
        """Multiplications, per trajectory."""
        _, e, t, m = self.sizes
        return t * t * (self.fixed.shape[2] + m + e)

    @property
    def _by_row(self) -> Tensor:
        """(N, E, T)."""
        return self.scales.transpose(0, 1)

    def _kernel(self) -> Tensor:
        return self.gram(self) * torch.bmm(self.rows, self.rows.mT)


def joined(factors: list[Factor]) -> list[Factor]:
    """Factors of the same kind and side concatenated along T, also scaled ones (a head's several arrays of rows)."""
    kinds: dict[tuple[bool, int], list[Factor]] = {}
    scaled: dict[int, list[Scaled]] = {}
    for factor in factors:
        if isinstance(factor, Scaled):
            scaled.setdefault(factor.side, []).append(factor)
        else:
            kinds.setdefault((factor.ids, factor.side), []).append(factor)
    out: list[Factor] = [_end_to_end(same) for same in scaled.values()]
    for (_, side), same in kinds.items():
        if len(same) == 1:
            out.append(same[0])
            continue
        grads = [torch.cat(b, dim=1) for b in zip(*(f.grads for f in same), strict=True)]
        out.append(Factor(torch.cat([f.fixed for f in same], dim=1), grads, side))
    return out


def _end_to_end(same: list[Scaled]) -> Scaled:
    if len(same) == 1:
        return same[0]
    fixed, rows = (torch.cat([getattr(f, name) for f in same], dim=1) for name in ("fixed", "rows"))
    return Scaled(fixed, rows, torch.cat([f.scales.to(rows) for f in same], dim=2), same[0].side)
