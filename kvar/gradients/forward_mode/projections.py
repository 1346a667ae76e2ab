"""``ScoreProjections``: every token's score along random directions, and the moments of any weighting from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    projection is p_i^e = sum_t w_t z_t, and E[p_i^e p_j^f] = <g_i^e, g_j^f>. Results are averages over the D
    directions: unbiased, with an error that falls as 1/sqrt(D) and is estimated from their spread.

    Directions of different cells of the parameters (the finest split that every group is a union of) are independent,
    so that each group's inner products are sums over its cells.

    Attributes:
        cells: (D, C, N, T) float64, zero where masked.
        members: group name -> numbers of its cells; always includes "all".
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
        e = len(weights)
        names = tuple(str(i) for i in range(e)) if names is None else tuple(str(name) for name in names)
        if len(names) != e or len(set(names)) != e:
            raise ValueError(f"names must be {e} distinct names, one for each estimator; got {list(names)}.")
        groups = {
            group: replace(moments, score_power=self.score_power(group))
            for group, moments in projected_moments(self.project(weights), self.members, self.prompt_index).items()
        }
        return GradientMoments(names, groups, self.prompt_index)

    def score_power(self, group: str = "all") -> Tensor:
        """(N,): sum_t |s_t|^2, unbiased."""
        return (self.cells[:, list(self.members[group])] ** 2).sum(dim=(1, 3)).mean(dim=0)

    def trace_covariance(self, weights: Tensor, group: str = "all") -> tuple[Tensor, Tensor]:
        """Unbiased tr Cov(g^e), theory.md (12), and its relative error from the finite number of directions.

        The error is that of the directions only, given the N trajectories; it is at most about sqrt(2/D), and smaller
        the more the trajectories' gradients differ in direction. With few directions the estimate is skewed: Student-t
        intervals from ten of them covered the true value in 176 of 200 trials.

        Args:
            weights: (E, N, T).
            group: parameter group.

        Returns:
            (E,) values and (E,) standard errors divided by the values.

        Raises:
            ValueError: fewer than two directions or trajectories.
        """
        if self.directions < 2:
            raise ValueError("one direction has no spread to estimate an error from: use directions=2 or more.")
        n = len(self.mask)
        if n < 2:
            raise ValueError("tr Cov needs two trajectories or more; got 1.")
        p = self.project(weights)[:, list(self.members[group])]
        each = n / (n - 1) * ((p**2).mean(dim=-1) - p.mean(dim=-1) ** 2).sum(dim=1)
        value = each.mean(dim=0)
        return value, each.std(dim=0) / self.directions**0.5 / value


def projected_moments(
    projected: Projections,
    members: Mapping[str, tuple[int, ...]],
    prompt_index: Tensor,
    *,
    fields: Literal["all", "norms"] = "all",
) -> dict[str, GroupMoments]:
    """Moments as averages over directions of products of projections; unbiased, since E v v^T = 1.

    Args:
        projected: (D, C, E, N).
        members: group name -> numbers of its cells.
        prompt_index: (N,).
        fields: "norms" for ``sq_norm`` and ``mean_pair`` only.

    Returns:
        Group name -> moments.
    """
    labels, sizes = prompt_index.unique(return_inverse=True, return_counts=True)[1:]
    by_prompt = projected.new_zeros(*projected.shape[:3], len(sizes)).index_add_(3, labels, projected) / sizes
    mean, d = projected.mean(dim=-1), len(projected)
    out = {}
    for group, cells in members.items():
        p, pbar, pm = projected[:, list(cells)], mean[:, list(cells)], by_prompt[:, list(cells)]
        mean_pair = torch.einsum("dce,dcf->ef", pbar, pbar) / d
        if fields == "norms":
            out[group] = GroupMoments(sq_norm=(p**2).sum(dim=1).mean(dim=0), mean_pair=mean_pair)
            continue
        out[group] = GroupMoments.of_products(
            mean_pair=mean_pair,
            cross=torch.einsum("dcen,dcf->efn", p, pbar) / d,
            pair=torch.einsum("dcen,dcfn->efn", p, p) / d,
            prompt_pair=torch.einsum("dcem,dcfm->efm", pm, pm) / d,
        )
    return out
