"""Whether a step points toward or away from a target, and how well: the signed root of the efficiency."""

from __future__ import annotations

import numpy as np

from kvar.analysis.bias import need_pairs
from kvar.analysis.replicates import Unit, resolve_reference
from kvar.analysis.step.design import design_replicates
from kvar.analysis.step.efficiency import direction_of
from kvar.gradients.moments import GradientMoments
from kvar.intervals.jackknife import Estimate, jackknife

__all__ = ["direction", "units_for_sign"]


def direction(
    moments: GradientMoments,
    batch: float | None = None,
    group: str = "all",
    reference: str | int | None = None,
    rollouts_per_prompt: float = 1,
    unit: Unit = None,
    confidence: float = 0.95,
) -> Estimate:
    """<E g, g*> / sqrt((|E g|^2 + tr Cov(step)) |g*|^2), a cosine in mean square; its square is the efficiency (11').

    A negative value is a step that leads away from the target. With ``batch=math.inf`` it is the cosine between the
    expectations: 1 less its square is the share of bias that no batch size removes.

    Args:
        moments: of E estimators, with all fields.
        batch: B, trajectories a step; the N measured by default.
        group: parameter group.
        reference: the target, an estimator whose mean is g*: "data", a score estimator, an unbiased one of J or J_kl.
        rollouts_per_prompt: R of the step.
        unit: what was drawn independently.
        confidence: of the interval, formed for arctanh of the direction.

    Returns:
        (E,) between -1 and 1 but for noise; NaN with the interval [-1, 1] where |g*|^2 is not resolved.

    Raises:
        ValueError: as :func:`kvar.analysis.efficiency`.
    """
    need_pairs(moments, group, "direction")
    data = design_replicates(moments, group, unit, rollouts_per_prompt)
    size = float(data.n[0].max()) if batch is None else float(batch)
    r = resolve_reference(moments.names, reference)
    signed = direction_of(data, r, size / rollouts_per_prompt, rollouts_per_prompt)
    found = jackknife(signed, data.units, confidence, scale="cosine")
    known = np.isfinite(signed).all(axis=0)
    return Estimate(
        value=found.value,
        low=np.where(known, found.low, -1.0),
        high=np.where(known, found.high, 1.0),
        n=found.n,
        replicates=found.replicates,
    )


def units_for_sign(estimate: Estimate, confidence: float = 0.95) -> np.ndarray:
    """How many units would tell each sign, were the estimates the true values.

    The standard error is taken to fall as one over the root of the units. That is pessimistic where the signal is lost
    in noise: the error of a U-statistic of nothing falls as one over the units.

    Args:
        estimate: of :func:`direction` or :func:`kvar.analysis.signal`, with replicates.
        confidence: that the interval should have.

    Returns:
        (E,) units (prompts or trajectories); infinity for a value of 0, NaN where the value is not known.
    """
    from scipy.special import ndtri

    if estimate.replicates is None:
        raise ValueError("units_for_sign needs an estimate with replicates: measure with fields='all'.")
    n = estimate.n
    spread = estimate.replicates - estimate.replicates.mean(axis=0)
    error = np.sqrt((n - 1) / n * (spread**2).sum(axis=0))
    with np.errstate(all="ignore"):
        needed = n * (float(ndtri(0.5 + confidence / 2)) * error / np.abs(estimate.value)) ** 2
    return np.where(np.isfinite(estimate.value), needed, np.nan)
