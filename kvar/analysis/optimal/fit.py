"""Weights of groups of lags that maximise a step's efficiency, shrunk toward one of the measured estimators."""

from __future__ import annotations

import numpy as np

from kvar.analysis.optimal.family import LagFamily
from kvar.analysis.optimal.pieces import Pieces, efficiency_of, square_of, times
from kvar.intervals.jackknife import Array

__all__ = ["RIDGES", "fit_family", "fitted_weights"]

RIDGES = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Shrinkage that is tried, in units of each group's own second moment; beside it, the measured estimator itself."""
_LEAST_FIRST = 0.02
"""The first weight is at least this share of the largest: it is divided by, and a kernel's w_0 is 1."""


def fitted_weights(power: Array, toward: Array, noise: Array, members: Array) -> tuple[Array, Array]:
    """(A + ridge D)^-1 (m + ridge D p), with A = M + C / B, D its diagonal, p the best measured estimator; (25').

    p is the member with the largest efficiency, times the factor that brings it nearest g*. The ridge is the one with
    the smallest estimate of E|w.g - g*|^2: w A w - 2 w.m is too small by twice the covariance of w and m, which is
    added (Mallows 1973, C_L; Stein 1981). Only weights whose first is positive are taken, and where A is not positive
    definite p itself is.

    Args:
        power: (..., G, G), A.
        toward: (..., G), m.
        noise: (G, G), the covariance of m's error.
        members: (E, G), measured estimators as weights.

    Returns:
        (..., G) weights with the first 1, and (...) the ridge taken, infinity for p itself.
    """
    count = power.shape[-1]
    diagonal = np.diagonal(power, axis1=-2, axis2=-1)
    of_members = efficiency_of(members, power[..., None, :, :], toward[..., None, :], np.asarray(1.0))
    start = np.argmax(np.where(np.isfinite(of_members), of_members, -np.inf), axis=-1)
    p = members[start]
    square = square_of(p, power)
    ridges = np.broadcast_to(np.inf, start.shape)
    definite = (np.linalg.eigvalsh(power)[..., 0] > 0) & ((p * toward).sum(axis=-1) > 0)
    safe = np.where(definite[..., None, None], power, np.eye(count))
    scaled = np.where(definite[..., None], diagonal, 1.0)[..., :, None] * np.eye(count)
    with np.errstate(all="ignore"):
        onto = p[..., :, None] * p[..., None, :] / square[..., None, None]  # m -> p times its best factor
    onto = np.where(definite[..., None, None], onto, 0.0)
    weights, least = p, np.asarray(_risk(onto, power, toward, noise))
    for ridge in RIDGES:
        solve = np.linalg.solve(safe + ridge * scaled, np.eye(count) + ridge * scaled @ onto)
        w = times(solve, toward)
        risk = _risk(solve, power, toward, noise)
        better = definite & (risk < least) & (w[..., 0] >= _LEAST_FIRST * np.abs(w).max(axis=-1))
        with np.errstate(all="ignore"):
            weights = np.where(better[..., None], w / w[..., :1], weights)
        least, ridges = np.where(better, risk, least), np.where(better, ridge, ridges)
    return weights, ridges


def fit_family(pieces: Pieces, family: LagFamily) -> tuple[Array, Array]:
    """:func:`fitted_weights` of the groups of lags, with all units and without each: (1+U, G) and (1+U,)."""
    groups = family.groups(pieces.toward.shape[1])
    power, toward = groups @ pieces.power @ groups.T, pieces.toward @ groups.T
    return fitted_weights(power, toward, groups @ pieces.noise @ groups.T, family.members)


def _risk(solve: Array, power: Array, toward: Array, noise: Array) -> Array:
    """(...) of w = solve m, without |g*|^2."""
    w = times(solve, toward)
    optimism = np.einsum("...ij,ij->...", solve, noise)
    return np.asarray(square_of(w, power) - 2 * (w * toward).sum(axis=-1) + 2 * optimism)
