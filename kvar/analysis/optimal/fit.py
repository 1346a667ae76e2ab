"""Weights of groups of lags that maximise a step's efficiency, shrunk toward one of the measured estimators."""

from __future__ import annotations

import numpy as np

from kvar.analysis.optimal.family import LagFamily
from kvar.analysis.optimal.pieces import Pieces, efficiency_of, square_of, times
from kvar.intervals.jackknife import Array

__all__ = ["LEAST_FIRST", "RIDGES", "fit_family", "fitted_weights"]

RIDGES = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Shrinkage that is tried, in units of each group's own second moment; beside it, the measured estimator itself."""
LEAST_FIRST = 0.05
"""The first weight is at least this share of the largest: it is divided by, a kernel's w_0 being 1."""


def fitted_weights(power: Array, toward: Array, noise: Array, members: Array) -> tuple[Array, Array]:
    """(A + ridge D)^-1 (m + ridge D p), with A = M + C / B, D its diagonal, p the best measured estimator; (25').

    p is the member with the largest efficiency, times the factor that brings it nearest g*. The ridge is the one with
    the smallest estimate of E|w.g - g*|^2: w A w - 2 w.m is too small by twice the covariance of w and m, which is
    added (Mallows 1973, C_L; Stein 1981). Where the first weight would be less than ``LEAST_FIRST`` of the largest, or
    negative, the others are fitted without the first group, which then has that share. Where p does not lead
    toward g* it is taken itself.

    Args:
        power: (..., G, G), A, positive definite.
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
    leads = (p * toward).sum(axis=-1) > 0
    scaled = diagonal[..., :, None] * np.eye(count)
    onto = p[..., :, None] * p[..., None, :] / square[..., None, None]  # m -> p times its best factor
    weights, least = p, np.asarray(_risk(onto, power, toward, noise))
    for ridge in RIDGES:
        solve = _solution(power + ridge * scaled, np.eye(count) + ridge * scaled @ onto, toward)
        risk, w = _risk(solve, power, toward, noise), times(solve, toward)
        w[..., 0] = np.maximum(w[..., 0], LEAST_FIRST * np.abs(w).max(axis=-1))
        better = leads & (risk < least) & (w[..., 0] > 0)
        with np.errstate(all="ignore"):
            weights = np.where(better[..., None], w / w[..., :1], weights)
        least, ridges = np.where(better, risk, least), np.where(better, ridge, ridges)
    return weights, ridges


def _solution(left: Array, right: Array, toward: Array) -> Array:
    """(..., G, G) the matrix that gives w of m; its first row is 0 where the first weight would be too small."""
    solve, rest = np.linalg.solve(left, right), np.zeros_like(right)
    w = times(np.asarray(solve, dtype=np.float64), toward)
    enough = w[..., 0] >= LEAST_FIRST * np.abs(w).max(axis=-1)
    rest[..., 1:, :] = np.linalg.solve(left[..., 1:, 1:], right[..., 1:, :])
    return np.asarray(np.where(enough[..., None, None], solve, rest), dtype=np.float64)


def fit_family(pieces: Pieces, family: LagFamily) -> tuple[Array, Array]:
    """:func:`fitted_weights` of the groups of lags, with all units and without each: (1+U, G) and (1+U,)."""
    groups = family.groups(pieces.toward.shape[1])
    signal, step = (groups @ x @ groups.T for x in (pieces.signal, pieces.step))
    noise = groups @ pieces.noise @ groups.T
    return fitted_weights(_definite(signal, step), pieces.toward @ groups.T, noise, family.members)


def _definite(signal: Array, step: Array) -> Array:
    """(..., G, G) M + C / B with M's estimate made positive semidefinite, as Gram matrices are, in the metric of C."""
    values, vectors = np.linalg.eigh(step)
    values = np.maximum(values, 1e-9 * values[..., -1:] + 1e-200)
    root, inverse = (vectors * (values**power)[..., None, :] @ np.swapaxes(vectors, -1, -2) for power in (0.5, -0.5))
    sizes, axes = np.linalg.eigh(inverse @ signal @ inverse)
    axes = root @ axes
    return np.asarray(root @ root + axes * np.maximum(sizes, 0.0)[..., None, :] @ np.swapaxes(axes, -1, -2))


def _risk(solve: Array, power: Array, toward: Array, noise: Array) -> Array:
    """(...) of w = solve m, without |g*|^2."""
    w = times(solve, toward)
    optimism = np.einsum("...ij,ij->...", solve, noise)
    return np.asarray(square_of(w, power) - 2 * (w * toward).sum(axis=-1) + 2 * optimism)
