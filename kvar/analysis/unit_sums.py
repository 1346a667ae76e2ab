"""Each unit's share in the sums that statistics of a measurement are made of; a unit is a trajectory or a prompt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kvar.gradients.moments import GradientMoments
from kvar.intervals.jackknife import Array

__all__ = ["UnitSums", "need_pairs", "unit_sums"]


@dataclass(frozen=True, eq=False)
class UnitSums:
    """Sums of U units; G_u is the sum of unit u's gradients, S that of all units.

    Attributes:
        names: the E estimators.
        size: (U, E) trajectories of each unit that each estimator is an estimate from.
        shared: (U, E, E) those that two estimators share.
        square: (U, E, E), sum_{i in u} <g_i^e, g_i^f>.
        same: (U, E, E), <G_u^e, G_u^f>.
        with_total: (U, E, E), <G_u^e, S^f> + <S^e, G_u^f>.
        total: (E, E), <S^e, S^f>.
        inner: (U, E, E), squared deviations from the unit's own mean, times n_u / (n_u - 1); 0 for units of one
            trajectory, and for two estimators from different ones; None where fewer than two units have more.
        inner_size: (U, E, E) trajectories counted in ``inner``.
    """

    names: tuple[str, ...]
    size: Array
    shared: Array
    square: Array
    same: Array
    with_total: Array
    total: Array
    inner: Array | None
    inner_size: Array


def need_pairs(moments: GradientMoments, group: str, what: str) -> None:
    """Refuse moments that hold norms only.

    Raises:
        ValueError: fields="norms"; the message begins with ``what``.
    """
    if moments[group].pair is None:
        raise ValueError(f"{what}: products of trajectories are needed; measure with fields='all', not 'norms'.")


def unit_sums(moments: GradientMoments, group: str, prompts: bool) -> UnitSums:
    """The sums of one parameter group by prompt, or by trajectory.

    Args:
        moments: with all fields.
        group: parameter group.
        prompts: whether prompts are the units.

    Raises:
        ValueError: fields="norms", or no products of the prompts' means.
    """
    need_pairs(moments, group, "sums by unit")
    data = moments[group]
    assert data.pair is not None and data.cross is not None  # need_pairs
    pair, cross = (x.numpy().transpose(2, 0, 1) for x in (data.pair, data.cross))
    n = len(pair)
    total = n**2 * data.mean_pair.numpy()
    along = n * (cross + cross.transpose(0, 2, 1))
    on = np.ones((n, len(moments.names))) if moments.on is None else moments.on.numpy().T.astype(float)
    both = on[:, :, None] * on[:, None, :]
    if not prompts:
        return UnitSums(moments.names, on, both, pair, pair, along, total, None, np.zeros_like(both))
    if data.prompt_pair is None:
        raise ValueError(
            "sums by prompt need the table prompt_gradients (moments.prompt_pair), which is missing: measure again."
        )
    _, member, counts = np.unique(moments.prompt_index.numpy(), return_inverse=True, return_counts=True)
    size, shared, square = (_summed(x, member.reshape(-1), len(counts)) for x in (on, both, pair))
    same = counts[:, None, None].astype(float) ** 2 * data.prompt_pair.numpy().transpose(2, 0, 1)
    several = (shared > 1) & (shared == size[:, :, None]) & (shared == size[:, None, :])
    with np.errstate(all="ignore"):
        inner = (shared / (shared - 1)) * (square - same / shared)
    return UnitSums(
        names=moments.names,
        size=size,
        shared=shared,
        square=square,
        same=same,
        with_total=_summed(along, member.reshape(-1), len(counts)),
        total=total,
        inner=np.where(several, inner, 0.0) if several.any(axis=(1, 2)).sum() >= 2 else None,
        inner_size=np.where(several, shared, 0.0),
    )


def _summed(per_row: Array, member: np.ndarray, count: int) -> Array:
    starts = np.searchsorted(np.sort(member), np.arange(count))
    return np.asarray(np.add.reduceat(per_row[np.argsort(member, kind="stable")], starts, axis=0))
