"""Whether a measurement is reason enough to change the estimator that is in use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kvar.analysis.frames.reference import parsed
from kvar.analysis.optimal.cross_fit import cross_fitted, efficiency_interval, gain_interval
from kvar.analysis.optimal.family import LagFamily, lag_family
from kvar.analysis.optimal.fit import fit_family
from kvar.analysis.optimal.optimal_kernel import check_units, unresolved
from kvar.analysis.optimal.pieces import Pieces, pieces_of
from kvar.analysis.replicates import Unit
from kvar.analysis.step.best_k import competing
from kvar.estimators.adaptive import FITTED
from kvar.gradients.moments import GradientMoments
from kvar.intervals.interval import Interval, number
from kvar.intervals.jackknife import Array

__all__ = ["FITTED", "Choice", "choose"]


@dataclass(frozen=True)
class Choice:
    """An estimator to go on with.

    Attributes:
        name: its name.
        changed: whether it is another than the current one.
        gain: efficiency of the best candidate less that of the current estimator, paired; NaN where the target is not
            resolved.
        efficiencies: candidate -> its efficiency, cross-fitted; the fitted one under its name.
        reason: one sentence.
    """

    name: str
    changed: bool
    gain: Interval
    efficiencies: dict[str, Interval]
    reason: str


def choose(
    moments: GradientMoments,
    current: str,
    candidates: Sequence[str] | None = None,
    *,
    batch: float = 64,
    target: str = "J",
    margin: float = 0.1,
    rollouts_per_prompt: float = 1,
    among: Sequence[str] | None = None,
    group: str = "all",
    unit: Unit = None,
    confidence: float = 0.95,
) -> Choice:
    """The candidate of largest efficiency (11'), if its gain on the current estimator is resolved and worth it.

    The current estimator stays unless the best candidate's gain is above zero at the confidence given, divided among
    the candidates (Bonferroni), and its efficiency at least ``1 + margin`` times the current one's. So noise does not
    make the choice go back and forth. At a confidence of 0 the candidate that looks best is taken, whatever is in use.

    Args:
        moments: of E estimators, with all fields.
        current: name of the estimator in use: one that is measured, or a fitted kernel whose groups of lags are.
        candidates: names of measured estimators, and "fitted"; by default all measured ones but ``data``, and "fitted"
            if estimators by lag are among them.
        batch: B of the step.
        target: an objective or a measured estimator.
        margin: gain that is worth a change, as a share of the current efficiency.
        rollouts_per_prompt: R of the step.
        among: as of :func:`kvar.analysis.optimal_kernel`.
        group: parameter group.
        unit: what was drawn independently.
        confidence: that a gain needs; 0 for none and no margin, with intervals of 95 %.

    Returns:
        The choice with its reason.

    Raises:
        ValueError: a current estimator or candidate that is not measured, a negative margin, a confidence that is not
            at least 0 and below 1, or as :func:`kvar.analysis.optimal_kernel`.
    """
    if not margin >= 0:
        raise ValueError(f"margin must be 0 or more, a share of the current efficiency; got {margin!r}.")
    if not 0 <= confidence < 1:
        raise ValueError(f"confidence must be at least 0 and below 1; got {confidence!r}.")
    pieces = pieces_of(moments, batch, target, rollouts_per_prompt, group, unit, "choose")
    candidates = [candidates] if isinstance(candidates, str) else candidates
    family = _family(moments.names, among, candidates)
    if candidates is None:
        kept = [name for name, taking_part in zip(moments.names, competing(moments.names), strict=True) if taking_part]
        candidates = [*kept, *([FITTED] if family is not None else [])]
    chosen_among = dict(_weights(moments.names, name, family, pieces) for name in dict.fromkeys(candidates))
    weights = dict([_weights(moments.names, current, family, pieces)]) | chosen_among
    if not pieces.resolved:
        return Choice(current, False, Interval(np.nan, n=pieces.units), {}, unresolved(pieces))
    each = {name: cross_fitted(pieces, w) for name, w in weights.items()}
    efficiencies = {name: efficiency_interval(direction, confidence or 0.95) for name, direction in each.items()}
    rivals = {name: efficiencies[name].value for name in each if name != current}
    if not rivals:
        return Choice(current, False, Interval(0.0, n=pieces.units), efficiencies, f"{current} has no rival: keep it.")
    if confidence == 0:
        rivals = {name: efficiencies[name].value for name in chosen_among}
    best = max(rivals, key=lambda name: -np.inf if np.isnan(rivals[name]) else rivals[name])
    gain = gain_interval(each[best], each[current], 1 - (1 - confidence) / len(rivals) if confidence else 0.95)
    now, then = efficiencies[current].value, efficiencies[best].value
    if confidence == 0 and not np.isnan(then):
        words = f"{best} has the largest efficiency of the candidates, {number(then)}"
        changed = best != current
        return Choice(best, changed, gain, efficiencies, f"{words}: {'change to' if changed else 'keep'} {best}.")
    words = f"{best} has an efficiency of {number(then)} and {current} of {number(now)}"
    if not gain.value > 0:
        return Choice(current, False, gain, efficiencies, f"No candidate has a larger efficiency than {current}.")
    if not gain.low > 0:
        return Choice(current, False, gain, efficiencies, f"{words}, which is not resolved: keep {current}.")
    if gain.value < margin * max(now, 0.0):
        return Choice(current, False, gain, efficiencies, f"{words}, not worth a change: keep {current}.")
    return Choice(best, True, gain, efficiencies, f"{words}: change to {best}.")


def _family(names: Sequence[str], among: Sequence[str] | None, candidates: Sequence[str] | None) -> LagFamily | None:
    try:
        return lag_family(names, among)
    except ValueError:
        if among is not None or FITTED in (candidates or ()):
            raise
        return None


def _weights(names: Sequence[str], name: str, family: LagFamily | None, pieces: Pieces) -> tuple[str, Array]:
    """Name of a candidate, and (1+U, E) its weights of the measured estimators, chosen with all units and without each.

    Raises:
        ValueError: it is not measured.
    """
    count, shape = len(names), (pieces.units + 1, len(names))
    if name in names:
        return name, np.broadcast_to(np.eye(count)[names.index(name)], shape)
    if family is not None and name == FITTED:
        check_units(family, pieces)
        weights, _ = fit_family(pieces, family)
        return family.estimator(family.rounded(weights[0])).name, weights @ family.groups(count)
    e = parsed(name)
    fixed = None if family is None or e is None else family.weights_of(e)
    if family is None or fixed is None:
        raise ValueError(
            f"{name!r} is none of the estimators measured, {', '.join(names)}, nor a kernel of their lags."
        )
    return name, np.broadcast_to(fixed @ family.groups(count), shape)
