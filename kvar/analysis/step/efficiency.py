"""How well a batch's gradient points along the true one; theory.md (11')."""

from __future__ import annotations

import numpy as np

from kvar.analysis.replicates import Replicates, Unit, need_pairs, resolve_reference
from kvar.analysis.signal import signal_of
from kvar.analysis.step.design import design_replicates, prompts_of, step_variance
from kvar.gradients.moments import GradientMoments
from kvar.intervals.jackknife import NEAR_ONE, Array, Estimate, Scale, jackknife
from kvar.intervals.squared_length import squared_length

__all__ = [
    "direction_from", "direction_of", "efficiency", "efficiency_estimate", "limit_interval", "signed_square",
]  # fmt: skip


def signed_square(x: Array) -> Array:
    """X |x|."""
    return np.asarray(x * np.abs(x))


def direction_of(data: Replicates, reference: int, prompts: float, rollouts_per_prompt: float) -> Array:
    """(1+U, E) <E g, g*> / sqrt((|E g|^2 + tr Cov(step)) |g*|^2), a cosine in mean square: the signed root of (11').

    Every factor is a U-statistic; NaN unless |g*|^2 > 0.
    """
    return direction_from(data, reference, step_variance(data, prompts, rollouts_per_prompt))


def direction_from(data: Replicates, reference: int, variance: Array) -> Array:
    """The same from (1+U, E) variances of a step's mean, where each estimator has a design of its own."""
    signal = signal_of(data)
    true = signal[:, reference : reference + 1]
    with np.errstate(all="ignore"):
        power = signal + variance
        return np.asarray(data.signal()[:, :, reference] / np.sqrt(np.where(true > 0, power * true, np.nan)))


def efficiency(
    moments: GradientMoments,
    batch: float | None = None,
    group: str = "all",
    reference: str | int | None = None,
    rollouts_per_prompt: float = 1,
    unit: Unit = None,
    confidence: float = 0.95,
) -> Estimate:
    """Efficiency eta = <E g, g*>^2 / ((|E g|^2 + tr Cov(g) / B) |g*|^2), (11').

    It is 1 for the true direction without noise, free of the scale of g, and 1 - eta is the squared error, in units of
    |g*|^2, left after the best rescaling. It is given the sign of <E g, g*>: below zero the step points away from g*.
    <E g, g*>, |E g|^2 and |g*|^2 come from pairs of distinct trajectories, tr Cov from (12); the jackknife removes the
    bias of order 1/N that their ratio has, unless N is so small that the correction leaves the interval: then the value
    is not corrected. The interval is the hull of two, formed for arctanh of the signed root of eta about the root as it
    is and about the corrected root, and squared with its sign: with few units the correction matters, and where |g*|^2
    is barely resolved it is itself too noisy. Where that root, which noise may carry past 1, is near 1 with or without
    one unit, the hull takes in the symmetric interval too. Coverage on token MDPs: :func:`kvar.analysis.toward`.
    Where |g*|^2 is not resolved (an estimate, with or without one unit, that is not positive) the direction is unknown:
    the interval is then [-1, 1], and the value NaN if the full estimate is not positive.

    Args:
        moments: of E estimators, with all fields.
        batch: B, trajectories a step; the N measured by default.
        group: parameter group.
        reference: an unbiased estimator of g*, the less noisy the better; by default the first called K=1 or LLMR,
            else the first.
        rollouts_per_prompt: R; above 1 the batch is B/R prompts x R rollouts, and tr Cov / B becomes (between +
            within / R) R / B, (10).
        unit: what was drawn independently.
        confidence: of the interval.

    Returns:
        (E,) pure numbers, between -1 and 1 but for noise.

    Raises:
        ValueError: fields="norms", an impossible batch, or (for R > 1) no prompts with two rollouts.
    """
    need_pairs(moments, group, "efficiency")
    data = design_replicates(moments, group, unit, rollouts_per_prompt)
    size = float(data.n[0].max()) if batch is None else float(batch)
    r = resolve_reference(moments.names, reference)
    return efficiency_estimate(
        direction_of(data, r, prompts_of(size, rollouts_per_prompt), rollouts_per_prompt), confidence
    )


_ROOT_SCALES: tuple[Scale, ...] = ("cosine", "plain")


def limit_interval(data: Replicates, reference: int, confidence: float = 0.95) -> tuple[Array, Array]:
    """(E,), (E,): ends for the efficiency c |c| of an infinite batch, which is 1 where the bias is nothing.

    With beta = <E g, g*> / |E g|^2, 1 - c^2 = |g* - beta E g|^2 / |g*|^2 is a squared length, and its interval that of
    :func:`kvar.intervals.squared_length`.
    """
    direction = direction_of(data, reference, np.inf, 1)
    signal, noise = data.signal()[0], data.noise()
    with np.errstate(all="ignore"):
        beta = signal[:, reference] / np.diagonal(signal)
        left = noise[reference, reference] - 2 * beta * noise[:, reference] + beta**2 * np.diagonal(noise)
        rest = squared_length(1 - direction**2, left / signal[reference, reference], data.units, confidence)
        near, far = (np.clip(1 - x, 0.0, 1.0) for x in (rest.low, rest.high))
    away = direction[0] < 0
    return np.where(away, -near, far), np.where(away, -far, near)


def efficiency_estimate(
    direction: Array, confidence: float = 0.95, limit: tuple[Array, Array] | None = None
) -> Estimate:
    """The efficiency and its interval, as :func:`efficiency` describes them, from the signed root of it.

    Args:
        direction: (1+U, E) of :func:`direction_of`.
        confidence: of the interval.
        limit: of :func:`limit_interval`, where the step is an infinite batch; the interval is the hull of all then.
    """
    units = len(direction) - 1
    root, wide = (jackknife(direction, units, confidence, scale) for scale in _ROOT_SCALES)
    moved = jackknife(direction, units, confidence, "cosine", correct=True)
    beyond = (limit is not None) | (np.abs(direction) >= NEAR_ONE).any(axis=0)
    plain = jackknife(signed_square(direction), units, confidence, correct=True)
    known = np.isfinite(direction).all(axis=0)
    low, high = (
        signed_square(np.clip(np.where(beyond, pick(pick(a, b), c), pick(a, c)), -1.0, 1.0))
        for pick, a, b, c in ((np.fmin, root.low, wide.low, moved.low), (np.fmax, root.high, wide.high, moved.high))
    )
    if limit is not None:
        low, high = np.fmin(low, limit[0]), np.fmax(high, limit[1])
    with np.errstate(invalid="ignore"):
        mended = known & (plain.value >= low) & (plain.value <= high)
    return Estimate(
        value=np.where(mended, plain.value, signed_square(direction[0])),
        low=np.where(known, low, -1.0),
        high=np.where(known, high, 1.0),
        n=plain.n,
        replicates=plain.replicates,
    )
