"""Moments of estimators that are weighted sums of measured ones: any kernel afterwards."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kvar.gradients.moments import GradientMoments, GroupMoments

__all__ = ["recombine"]


def recombine(moments: GradientMoments, coefficients: Tensor, names: Sequence[str]) -> GradientMoments:
    """Moments of h^a = sum_e C[a, e] g^e, exactly: every field is bilinear in the estimators.

    With moments of :func:`kvar.returns.lag_basis` and coefficients of :func:`kvar.returns.kernel_coefficients` this
    evaluates kernels that were not measured; with moments of measured kernels, mixtures and differences of them.

    Args:
        moments: of E estimators, with all fields.
        coefficients: (A, E).
        names: the A new estimators' names.

    Returns:
        Moments of the A estimators, for every group. If the new estimator is much smaller than its parts, digits are
        lost: float64 keeps about 16 minus twice the order of that ratio.

    Raises:
        ValueError: a wrong number of coefficients or names, fields="norms", or estimators of different trajectories.

    Example:
        >>> shapes = (1, 2), (1, 1), (1, 2), (1, 1, 2), (1, 1, 2), (1, 1, 2)
        >>> one = GradientMoments(("g",), {"all": GroupMoments(*map(torch.ones, shapes))}, torch.arange(2))
        >>> made = recombine(one, torch.tensor([[3.0]]), ["3 g"])
        >>> made.sq_norm.tolist()
        [[9.0, 9.0]]
    """
    if coefficients.dim() != 2 or coefficients.shape[1] != len(moments.names):
        raise ValueError(
            f"coefficients must be (A, {len(moments.names)}), one column an estimator; got {tuple(coefficients.shape)}."
        )
    if len(names) != len(coefficients) or len(set(names)) != len(names):
        raise ValueError(f"names must be {len(coefficients)} distinct names; got {list(names)}.")
    c = coefficients.detach().cpu().double()
    groups = {group: _group(moments[group], c) for group in moments}
    on = None if moments.on is None else torch.stack([_common(moments.on[row != 0]) for row in c])
    return GradientMoments(tuple(names), groups, moments.prompt_index, on)


def _common(on: Tensor) -> Tensor:
    """(N,) the trajectories that some estimators use, which must be the same for all of them."""
    if bool((on != on[:1]).any()):
        raise ValueError("estimators from different trajectories cannot be added: recombine those of one set.")
    return on.any(dim=0)


def _group(measured: GroupMoments, c: Tensor) -> GroupMoments:
    if measured.pair is None or measured.cross is None:
        raise ValueError("recombining needs products between estimators: measure with fields='all', not 'norms'.")

    def both(x: Tensor) -> Tensor:
        return torch.einsum("ae,efn,bf->abn", c, x.double(), c)

    return GroupMoments.of_products(
        mean_pair=c @ measured.mean_pair.double() @ c.T,
        cross=both(measured.cross),
        pair=both(measured.pair),
        prompt_pair=None if measured.prompt_pair is None else both(measured.prompt_pair),
        score_power=measured.score_power,
    )
