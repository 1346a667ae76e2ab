"""A fitted kernel beside one measured estimator, each at a step of its own; theory.md (25'')."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kvar.analysis.optimal.cross_fit import cross_fitted, efficiency_interval, gain_interval
from kvar.analysis.optimal.family import LagFamily
from kvar.analysis.optimal.fit import fit_family
from kvar.analysis.optimal.optimal_kernel import check_units
from kvar.analysis.optimal.pieces import pieces_of
from kvar.analysis.replicates import Unit
from kvar.gradients.moments import GradientMoments
from kvar.intervals.interval import Interval
from kvar.intervals.jackknife import Array

__all__ = ["Fitted", "fitted_beside"]


@dataclass(frozen=True)
class Fitted:
    """A fitted kernel and what it is expected to gain.

    Attributes:
        name: of the fitted estimator.
        efficiency: cross-fitted, with its interval.
        gain: ``efficiency`` less that of the estimator it is held against, paired.
        weights: (E,) of the measured estimators.
    """

    name: str
    efficiency: Interval
    gain: Interval
    weights: Array


def fitted_beside(
    moments: GradientMoments,
    family: LagFamily,
    step: tuple[float, float],
    against: str,
    other_step: tuple[float, float],
    target: str,
    *,
    group: str = "all",
    unit: Unit = None,
    confidence: float = 0.95,
    sure: float = 0.99,
) -> Fitted | None:
    """The kernel that is fitted for one step, held against a measured estimator in another step of the same cost.

    Args:
        moments: of E estimators, with all fields.
        family: of :func:`kvar.analysis.optimal.family.lag_family`.
        step: (B, R) of the fitted estimator.
        against: name of the measured estimator.
        other_step: (B, R) of it.
        target: an objective or a measured estimator.
        group: parameter group.
        unit: what was drawn independently.
        confidence: of the efficiency's interval.
        sure: of the gain's: a wider one, since the nominal one is too narrow, see :func:`kvar.analysis.optimal_kernel`.

    Returns:
        The fitted estimator; None where the target is not resolved, or the fit is ``against`` itself.

    Raises:
        ValueError: as :func:`kvar.analysis.optimal_kernel`.
    """
    pieces, others = (pieces_of(moments, b, target, r, group, unit, "advise") for b, r in (step, other_step))
    check_units(family, pieces)
    if not pieces.resolved:
        return None
    chosen, ridges = fit_family(pieces, family)
    if np.isinf(ridges[0]):  # the best measured member, not a fit
        return None
    weights = chosen @ family.groups(len(moments.names))
    alone = np.broadcast_to(np.eye(len(moments.names))[moments.names.index(against)], weights.shape)
    directions = cross_fitted(pieces, weights), cross_fitted(others, alone)
    rounded = family.rounded(chosen[0])
    return Fitted(
        family.estimator(rounded).name,
        efficiency_interval(directions[0], confidence),
        gain_interval(*directions, sure),
        rounded @ family.groups(len(moments.names)),
    )
