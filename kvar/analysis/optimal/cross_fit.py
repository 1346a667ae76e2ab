"""The efficiency of a choice on units that had no part in it; theory.md (25'')."""

from __future__ import annotations

import numpy as np

from kvar.analysis.optimal.pieces import Pieces, efficiency_of
from kvar.analysis.step.efficiency import signed_square
from kvar.intervals.interval import Interval
from kvar.intervals.jackknife import Array, jackknife, pseudo_values, signed_root

__all__ = ["cross_fitted", "efficiency_interval", "gain_interval"]


def cross_fitted(pieces: Pieces, weights: Array) -> Array:
    """The signed root of the efficiency of a choice of weights, each unit's part being judged by a choice without it.

    Unit u's part in <E g, g*> and in the power of a step is its pseudo-value, U theta - (U-1) theta_-u. To first order
    it does not depend on the other units, so that the result is unbiased where weights chosen and judged on the same
    units would look better than they are. To second order, the noise in products of two units counts against the
    weights, by as much as it would count for them in sample. The bias of order 1/U that the ratio has for fixed weights
    is taken off as :func:`kvar.analysis.efficiency` does, by at most one standard error.

    Args:
        pieces: of the measurement.
        weights: (1+U, E), chosen with all units and without each.

    Returns:
        (1+U,), with all units, then less the influence of each.
    """
    units = pieces.units
    square = np.einsum("ug,gh,uh->u", weights[1:], pieces.power[0], weights[1:])
    chosen = weights[1:] / np.sqrt(np.abs(square))[:, None]
    toward, power, true = (pseudo_values(x) for x in (pieces.toward, pieces.power, pieces.true))
    parts = np.stack([(chosen * toward).sum(axis=1), np.einsum("ug,ugh,uh->u", chosen, power, chosen), true])
    along, squared, _ = parts.mean(axis=1)
    with np.errstate(all="ignore"):
        scale = np.sqrt(squared * pieces.true[0])
        root = along / scale
        relative = (parts[1:] - parts[1:].mean(axis=1, keepdims=True)) / np.array([[squared], [pieces.true[0]]])
        influence = (parts[0] - along) / scale - root * relative.sum(axis=0) / 2
    left_out = root - influence / (units - 1)
    fixed = efficiency_of(weights[0], pieces.power, pieces.toward, pieces.true)
    error = 2 * abs(root) * np.sqrt((influence**2).sum() / (units * (units - 1)))
    curvature = np.clip((units - 1) * (fixed[1:].mean() - fixed[0]), -error, error)
    shift = signed_root(signed_square(root) - curvature) - root
    return np.concatenate([[root], left_out]) + shift


def efficiency_interval(direction: Array, confidence: float) -> Interval:
    """The efficiency and its interval, symmetric for arctanh of its signed root, of (1+U,) :func:`cross_fitted`."""
    units = len(direction) - 1
    root = jackknife(direction[:, None], units, confidence, scale="cosine")
    value, low, high = (float(signed_square(x)[0]) for x in (root.value, root.low, root.high))
    return Interval(value, low, high, units)


def gain_interval(direction: Array, other: Array, confidence: float) -> Interval:
    """The difference of two efficiencies, paired by unit, of (1+U,) :func:`cross_fitted` of each."""
    units = len(direction) - 1
    gain = jackknife((signed_square(direction) - signed_square(other))[:, None], units, confidence)
    return Interval(float(gain.value[0]), float(gain.low[0]), float(gain.high[0]), units)
