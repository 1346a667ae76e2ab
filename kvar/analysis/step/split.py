"""How a budget is best split into prompts and responses to each; theory.md (28)."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import numpy as np

from kvar.analysis.frames.reference import parsed
from kvar.analysis.replicates import Replicates, Unit, need_pairs, replicates
from kvar.analysis.step.design import within_of
from kvar.analysis.trace_covariance import trace_of
from kvar.gradients.moments import GradientMoments
from kvar.intervals.jackknife import Array, Estimate, jackknife

__all__ = [
    "Dependence", "between_over_within", "break_even", "dependence_of", "noise_at_budget", "optimal_rollouts",
    "rollouts_from_ratio", "steepest_within",
]  # fmt: skip

Dependence: TypeAlias = Literal["none", "leave-one-out", "unknown"]
"""Whether the variance within prompts depends on how many responses a prompt has."""


def optimal_rollouts(
    moments: GradientMoments,
    prompt_cost: float,
    response_cost: float = 1.0,
    group: str = "all",
    unit: Unit = None,
    confidence: float = 0.95,
) -> Estimate:
    """The responses R to each prompt with which a budget's mean gradient is least noisy, as a real number; (28).

    A prompt costs c_p and each response to it c_r, so that a budget N buys M = N / (c_p + R c_r) prompts. The variance
    of the step's mean, (10), is then

        (between + within / R) (c_p + R c_r) / N,    least at    R* = sqrt(within / between * c_p / c_r),

    where its derivative, between c_r - within c_p / R^2, vanishes: two-stage sampling (Cochran 1977, section 10.6).
    Where only responses cost anything (c_p = 0), one response to each prompt is never worse than more, whatever the
    shares. The direction E g does not depend on R, so the same R maximises the efficiency (11').

    "within" has to be that of one response whatever R is. Leave-one-out baselines need R >= 2 and have more of it at
    small R, see :func:`steepest_within`; for them this is an extrapolation.

    Args:
        moments: of E estimators, with all fields, two responses or more to several prompts.
        prompt_cost: c_p, in any unit.
        response_cost: c_r, in the same unit.
        group: parameter group.
        unit: None or "prompt".
        confidence: of the interval, formed for between / within, of which R* is a falling function. Where that reaches
            0 or below the upper end is infinite: differences between prompts are not told from nothing.

    Returns:
        (E,) R*, below 1 where one response is best; infinite where "between" is estimated at 0 or below.

    Raises:
        ValueError: a cost out of range, unit="trajectory", fields="norms", or fewer than two prompts with two responses
            or more.

    Example:
        >>> import torch
        >>> from kvar.analysis.exact.table import moments_of
        >>> draw = lambda *shape: torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))
        >>> prompts = draw(600, 1, 1).expand(600, 4, 1)  # between 1, within 4: R* = sqrt(4 c_p / c_r)
        >>> gradients = (prompts + 2 * draw(1, 600, 4, 1)[0]).reshape(1, 2400, 1)
        >>> best = optimal_rollouts(moments_of(gradients, torch.arange(600).repeat_interleave(4)), 4.0)
        >>> bool(best.low[0] < 4 < best.high[0])
        True
    """
    if not 0 <= prompt_cost < math.inf:
        raise ValueError(f"prompt_cost must be 0 or a positive number; got {prompt_cost!r}.")
    if not 0 < response_cost < math.inf:
        raise ValueError(f"response_cost must be a positive number; got {response_cost!r}.")
    if unit == "trajectory":
        raise ValueError("unit='trajectory' cannot tell prompts apart: leave unit None or use 'prompt'.")
    need_pairs(moments, group, "optimal_rollouts")
    data = replicates(moments, group, unit, by_prompt=True)
    ratio = jackknife(between_over_within(data), data.units, confidence)
    value, low, high = (
        rollouts_from_ratio(x, prompt_cost / response_cost) for x in (ratio.value, ratio.high, ratio.low)
    )
    return Estimate(value, low, high, data.units)


def between_over_within(data: Replicates) -> Array:
    """(1+U, E) between / within, (9)."""
    within = within_of(data)
    with np.errstate(all="ignore"):
        return np.asarray((trace_of(data) - within) / within)


def rollouts_from_ratio(ratio: Array, cost: float) -> Array:
    """R* from between / within and c_p / c_r; infinite for a ratio of 0 or below, 0 for a cost of 0."""
    with np.errstate(all="ignore"):
        return np.asarray(np.where(ratio > 0, np.sqrt(cost / np.where(ratio > 0, ratio, 1.0)), np.inf if cost else 0.0))


def break_even(ratio: Array) -> Array:
    """The cost c_p / c_r of a prompt above which two responses to each are better than one: 2 between / within.

    (between + within) (c_p + c_r) > (between + within / 2) (c_p + 2 c_r) where within c_p / 2 > between c_r.
    """
    return np.maximum(2 * ratio, 0.0)


def noise_at_budget(
    between: Array, within: Array, rollouts: float, prompt_cost: float, response_cost: float = 1.0
) -> Array:
    """N times the variance of a step's mean for a budget N, (between + within / R) (c_p + R c_r), elementwise."""
    return np.asarray((between + within / rollouts) * (prompt_cost + rollouts * response_cost))


def dependence_of(name: str) -> Dependence:
    """Whether an estimator's variance within prompts depends on R.

    A baseline formed of the prompt's other responses makes it so. Of an estimator that is not kvar's (a trainer's own)
    nothing is known. Means over the whole batch change with R by a share of one in the batch, which is neglected.

    >>> [dependence_of(name) for name in ("K=4", "kl K=1 exact expected - leave-one-out", "K=1 - group-normalised")]
    ['none', 'leave-one-out', 'unknown']
    """
    estimator = parsed(name)
    if estimator is None:
        return "unknown"
    baseline = estimator.subtracted
    if baseline is None or baseline.scope != "prompt":
        return "none"
    return "leave-one-out" if baseline.name == "leave-one-out" else "unknown"


def steepest_within(measured: float, rollouts: float) -> float:
    """How many times the measured variance within prompts a leave-one-out baseline can have at another R, at most.

    Given the prompt, let e_i be the returns' deviations and s_i the scores. The mean over R responses is

        (1/R) sum_i e_i s_i - 1 / (R (R-1)) sum_{i != j} e_j s_i .

    Its two sums are uncorrelated, since E s = 0 and E e = 0, with variances V1 / R and V2 / (R (R-1)). So what stands
    in the place of "within" is V1 + V2 / (R-1): the baseline's own noise falls as R grows. Measured at one R, the two
    are not told apart. If all of it were V2, it would be (R' - 1) / (R - 1) times as large at R, measured at R'; if all
    were V1, the same. That is exact but for E |E[e s | x]|^2 / (R'-1)^2, which counts as "between" at R', and where all
    responses reach every position.

    Args:
        measured: R', the responses to each prompt in the measurement.
        rollouts: R, 2 or more.

    Example:
        >>> steepest_within(4, 2), steepest_within(4, 8) < 1
        (3.0, True)
    """
    return (measured - 1) / (rollouts - 1)
