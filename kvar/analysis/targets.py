"""Estimators held against several targets: J, J_kl, the task's score, the data's likelihood; theory.md (26)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kvar.analysis.bias import need_pairs
from kvar.analysis.frames.reference import default_reference
from kvar.analysis.replicates import Unit
from kvar.analysis.signal import told_from_zero
from kvar.analysis.step.design import check_design, design_replicates, prompts_of
from kvar.analysis.step.efficiency import direction_of, efficiency_estimate, limit_interval
from kvar.gradients.moments import GradientMoments
from kvar.intervals.jackknife import Array, Estimate, signed_root
from kvar.intervals.quantiles import normal_quantile

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["toward", "units_for_sign"]


def toward(
    moments: GradientMoments,
    targets: Mapping[str, str] | Sequence[str],
    batch: float,
    *,
    rollouts_per_prompt: float = 1,
    group: str = "all",
    unit: Unit = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Where a step of each estimator leads: one row an estimator and target.

    On token MDPs of 4 to 42 parameters 95 % intervals of efficiency covered 93 to 100 % with 256 prompts. Those of bias
    err on the wide side: 91 to 100 %, and 86 % at the least on one. Where rare responses carry the gradients 256
    prompts are too few (71 % and 50 % at the least); docs/theory.md, section 9, has the table and its command.

    Args:
        moments: of E estimators, the targets among them.
        targets: estimators whose means are the gradients wanted, by name, "data" for instance; or objectives ("J",
            "J_kl", "score"), for which the quietest unbiased estimator measured stands. A mapping calls them otherwise.
        batch: B, trajectories a step.
        rollouts_per_prompt: R of the step.
        group: parameter group.
        unit: what was drawn independently.
        confidence: of the intervals.

    Returns:
        Columns target, reference (the estimator that stands for it), estimator; efficiency with efficiency_low and
        efficiency_high, negative where the step leads away (:func:`kvar.analysis.efficiency`); bias, 1 less the
        efficiency of an infinite batch (0 none, 1 orthogonal, 2 the opposite direction), with bias_low and bias_high;
        leads: "toward", "away" or "not resolved"; units, how many prompts or trajectories were measured;
        units_to_resolve, how many would tell the sign. ``table.attrs["resolved"]`` says of each target whether its own
        |g*|^2 is, at the confidence given: where it is not, efficiency with its interval and bias are NaN.
        (:func:`kvar.analysis.best_k`, which compares efficiencies that |g*|^2 scales alike, asks only that its
        estimates be positive.)

    Raises:
        ValueError: no targets, one that is not measured, or as :func:`kvar.analysis.efficiency`.
    """
    import pandas as pd

    if not isinstance(targets, Mapping):
        targets = {name: name for name in targets}
    if not targets:
        raise ValueError("targets is empty: name at least one, for instance ['data'].")
    need_pairs(moments, group, "toward")
    check_design(prompts_of(batch, rollouts_per_prompt), rollouts_per_prompt)
    data = design_replicates(moments, group, unit, rollouts_per_prompt)  # once for every target
    known_targets = told_from_zero(data, confidence)
    parts, resolved = [], {}
    for target, name in targets.items():
        reference = default_reference(moments.names, name)
        number = moments.names.index(reference)
        resolved[target] = bool(known_targets[number])
        prompts = prompts_of(batch, rollouts_per_prompt)
        step = efficiency_estimate(direction_of(data, number, prompts, rollouts_per_prompt), confidence)
        ends = limit_interval(data, number, confidence)
        limit = efficiency_estimate(direction_of(data, number, np.inf, 1), confidence, ends)
        known = 1.0 if resolved[target] else np.nan
        told = np.where(step.low > 0, "toward", np.where(step.high < 0, "away", "not resolved"))
        parts.append(
            pd.DataFrame(
                {
                    "target": target,
                    "reference": reference,
                    "estimator": moments.names,
                    "efficiency": known * step.value,
                    "efficiency_low": known * step.low,
                    "efficiency_high": known * step.high,
                    "bias": known * (1 - limit.value),
                    "bias_low": known * (1 - limit.high),
                    "bias_high": known * (1 - limit.low),
                    "leads": told if resolved[target] else "not resolved",
                    "units": step.n,
                    "units_to_resolve": units_for_sign(step, confidence),
                }
            )
        )
    table = pd.concat(parts, ignore_index=True)
    table.attrs["resolved"] = resolved
    return table


def units_for_sign(estimate: Estimate, confidence: float = 0.95, power: float = 0.5) -> Array:
    """How many units would tell each sign with probability ``power``, were the estimates the true values.

    The standard error of sign(x) sqrt|x| is taken to fall as one over the root of the units. That is pessimistic where
    the signal is lost in noise: the error of a U-statistic of nothing falls as one over the units.

    Args:
        estimate: of a signed quadratic statistic, :func:`kvar.analysis.efficiency` or :func:`kvar.analysis.signal`.
        confidence: that the interval should have.
        power: probability that the interval then excludes 0; at 0.5 the value is as far from 0 as the interval is wide
            to one side. 0.8 takes 2.04 times as many units, 0.9 2.73 times.

    Returns:
        (E,) units (prompts or trajectories); infinity for a value of 0, NaN where the value is not known.

    Raises:
        ValueError: an estimate without replicates.
    """
    from scipy.special import ndtri

    reach = normal_quantile(confidence)
    if estimate.replicates is None:
        raise ValueError("units_for_sign needs an estimate with replicates: measure with fields='all'.")
    value, left = (signed_root(x) for x in (estimate.value, estimate.replicates))
    n = estimate.n
    with np.errstate(all="ignore"):
        error = np.sqrt((n - 1) / n * ((left - left.mean(axis=0)) ** 2).sum(axis=0))
        needed = n * ((reach + float(ndtri(power))) * error / np.abs(value)) ** 2
    return np.where(np.isfinite(estimate.value), needed, np.nan)
