"""``ScoreProjections``: every token's score along random directions, and the moments of any weighting from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from kvar.gradients.moments import GradientMoments, GroupMoments

__all__ = ["Projections", "ScoreProjections", "projected_moments"]

Projections = Tensor
"""(D, C, E, N): <g_i^e, v_d> restricted to cell c of the parameters."""


@dataclass(frozen=True)
class ScoreProjections:
    """<s_t, v_d> for every token score s_t = grad log pi(y_t | s_t) and D random directions v_d, E v v^T = 1.

    Any estimator that is a weight on tokens follows from it, whatever its kernel or baseline, without the model: its
    projection is p_i^e = sum_t w_t z_t, and E[p_i^e p_j^f] = <g_i^e, g_j^f>. What is returned are averages over the D
    directions: unbiased, with an error that falls as 1/sqrt(D) and is estimated from their spread.

    Directions of different cells of the parameters (the finest split that every group is a union of) are independent,
    so that each group's inner products are sums over its cells.

    Attributes:
        cells: (D, C, N, T) float64, zero where masked.
        members: group name -> numbers of its cells; "all" is always there.
        mask: (N, T).
        prompt_index: (N,).
    """

    cells: Tensor
    members: Mapping[str, tuple[int, ...]]
    mask: Tensor
    prompt_index: Tensor

    @property
    def projections(self) -> Tensor:
        """(D, N, T): along directions over all parameters."""
        return self.cells.sum(dim=1)

    @property
    def directions(self) -> int:
        """D."""
        return int(self.cells.shape[0])

    def project(self, weights: Tensor) -> Projections:
        """(D, C, E, N): <g_i^e, v_d>, cell by cell.

        Args:
            weights: (E, N, T) token weights; ignored where masked.

        Raises:
            ValueError: another shape.
        """
        n, t = self.mask.shape
        if weights.dim() != 3 or tuple(weights.shape[1:]) != (n, t):
            raise ValueError(f"weights must have shape (E, N, T) = (E, {n}, {t}); got {tuple(weights.shape)}.")
        kept = weights.detach().cpu().double().masked_fill(~self.mask, 0.0)
        return torch.einsum("ent,dcnt->dcen", kept, self.cells)

    def moments(self, weights: Tensor, names: Sequence[str] | None = None) -> GradientMoments:
        """Unbiased estimates of every field that ``gradient_moments`` gives exactly, ``score_power`` included.

        Args:
            weights: (E, N, T).
            names: the E estimators' names.
        """
        return self._as_moments(self.project(weights), names, torch.Tensor.mean, self._power(torch.Tensor.mean))

    def standard_errors(self, weights: Tensor, names: Sequence[str] | None = None) -> GradientMoments:
        """The standard error over directions of every number in ``moments``, in the same places.

        Raises:
            ValueError: fewer than two directions.
        """
        self._need_two()
        return self._as_moments(self.project(weights), names, _error, self._power(_error))

    def trace_covariance(self, weights: Tensor, group: str = "all") -> tuple[Tensor, Tensor]:
        """Unbiased tr Cov(g^e), theory.md (12), and the relative error that the finite number of directions leaves.

        The error is that of the directions alone, given the N trajectories; it is at most about sqrt(2/D), and less
        the more the trajectories' gradients differ in direction. With few directions the estimate is skewed:
        Student-t intervals from ten of them held the truth in 176 of 200 trials.

        Args:
            weights: (E, N, T).
            group: parameter group.

        Returns:
            (E,) values and (E,) standard errors divided by the values.

        Raises:
            ValueError: fewer than two directions or trajectories.
        """
        self._need_two()
        n = len(self.mask)
        if n < 2:
            raise ValueError("tr Cov needs two trajectories or more; got 1.")
        p = self.project(weights)[:, list(self.members[group])]
        each = n / (n - 1) * ((p**2).mean(dim=-1) - p.mean(dim=-1) ** 2).sum(dim=1)
        value = each.mean(dim=0)
        return value, _error(each, 0) / value

    def _need_two(self) -> None:
        if self.directions < 2:
            raise ValueError("one direction has no spread to estimate an error from: use directions=2 or more.")

    def _power(self, over: Callable[[Tensor, int], Tensor]) -> dict[str, Tensor]:
        return {g: over((self.cells[:, list(c)] ** 2).sum(dim=(1, 3)), 0) for g, c in self.members.items()}

    def _as_moments(
        self,
        projected: Projections,
        names: Sequence[str] | None,
        over: Callable[[Tensor, int], Tensor],
        power: dict[str, Tensor],
    ) -> GradientMoments:
        moments = projected_moments(projected, self.members, self.prompt_index, over=over)
        groups = {g: replace(m, score_power=power[g]) for g, m in moments.items()}
        e = projected.shape[2]
        names = tuple(str(i) for i in range(e)) if names is None else tuple(str(name) for name in names)
        if len(names) != e or len(set(names)) != e:
            raise ValueError(f"names must be {e} distinct names, one for each estimator; got {list(names)}.")
        return GradientMoments(names, groups, self.prompt_index)


def projected_moments(
    projected: Projections,
    members: Mapping[str, tuple[int, ...]],
    prompt_index: Tensor,
    *,
    fields: Literal["all", "norms"] = "all",
    over: Callable[[Tensor, int], Tensor] = torch.Tensor.mean,
) -> dict[str, GroupMoments]:
    """Moments as averages over directions of products of projections; unbiased, since E v v^T = 1.

    Args:
        projected: (D, C, E, N).
        members: group name -> numbers of its cells.
        prompt_index: (N,).
        fields: "norms" for ``sq_norm`` and ``mean_pair`` only.
        over: (values, axis) -> what to take over the directions' axis: the mean, or its standard error.

    Returns:
        Group name -> moments.
    """
    labels, sizes = prompt_index.unique(return_inverse=True, return_counts=True)[1:]
    by_prompt = projected.new_zeros(*projected.shape[:3], len(sizes)).index_add_(3, labels, projected) / sizes
    mean = projected.mean(dim=-1)
    out = {}
    for group, cells in members.items():
        p, pbar, pm = projected[:, list(cells)], mean[:, list(cells)], by_prompt[:, list(cells)]
        mean_pair = over(torch.einsum("dce,dcf->def", pbar, pbar), 0)
        if fields == "norms":
            out[group] = GroupMoments(sq_norm=over((p**2).sum(dim=1), 0), mean_pair=mean_pair)
            continue
        out[group] = GroupMoments.of_products(
            mean_pair=mean_pair,
            cross=over(torch.einsum("dcen,dcf->defn", p, pbar), 0),
            pair=over(torch.einsum("dcen,dcfn->defn", p, p), 0),
            prompt_pair=over(torch.einsum("dcem,dcfm->defm", pm, pm), 0),
        )
    return out


def _error(each: Tensor, axis: int) -> Tensor:
    """Standard error of a mean over ``axis``."""
    return each.std(dim=axis) / each.shape[axis] ** 0.5
