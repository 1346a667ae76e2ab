"""Estimators held against several targets: J, J_kl, the task's score, the data's likelihood.

A target is an estimator of the measurement whose mean is the gradient wanted: an unbiased one of J (all lags of the
gap) or of J_kl (all lags of the log ratio), REINFORCE on the task's score, or ``data``
(:func:`kvar.estimators.with_references`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from kvar.analysis.replicates import Unit
from kvar.analysis.signal import signal
from kvar.analysis.step.direction import direction, units_for_sign
from kvar.gradients.moments import GradientMoments

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["toward"]


def toward(
    moments: GradientMoments,
    targets: Mapping[str, str],
    batch: float,
    *,
    rollouts_per_prompt: float = 1,
    group: str = "all",
    unit: Unit = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """One row an estimator and target: where a step of the estimator leads.

    Args:
        moments: of E estimators, the targets among them.
        targets: target -> the estimator whose mean is its gradient.
        batch: B, trajectories a step.
        rollouts_per_prompt: R of the step.
        group: parameter group.
        unit: what was drawn independently.
        confidence: of the intervals.

    Returns:
        Columns target, estimator; direction with direction_low and direction_high (signed, see
        :func:`kvar.analysis.direction`); efficiency, its square; bias, 1 - c|c| with c the cosine of the expectations
        (0 none, 1 orthogonal, 2 the opposite direction); leads: "toward", "away" or "not resolved"; units, how many
        prompts or trajectories were measured; units_to_resolve, how many would tell the sign.
        ``table.attrs["resolved"]`` says of each target whether its own |g*|^2 is: where it is not, nothing is said of
        directions.

    Raises:
        ValueError: no targets, an unknown estimator, or as :func:`kvar.analysis.direction`.
    """
    import pandas as pd

    if not targets:
        raise ValueError("targets is empty: name at least one, for instance {'data': 'data'}.")
    unknown = [name for name in targets.values() if name not in moments.names]
    if unknown:
        raise ValueError(f"targets: {unknown[0]!r} is none of the estimators {', '.join(moments.names)}.")
    power = signal(moments, group, unit, confidence)
    parts, resolved = [], {}
    for target, name in targets.items():
        number = moments.names.index(name)
        resolved[target] = bool(power.low[number] > 0)
        step = direction(moments, batch, group, name, rollouts_per_prompt, unit, confidence)
        limit = direction(moments, np.inf, group, name, rollouts_per_prompt, unit, confidence).value
        leads = np.where(step.low > 0, "toward", np.where(step.high < 0, "away", "not resolved"))
        parts.append(
            pd.DataFrame(
                {
                    "target": target,
                    "estimator": moments.names,
                    "direction": step.value,
                    "direction_low": step.low,
                    "direction_high": step.high,
                    "efficiency": step.value**2,
                    "bias": 1 - np.sign(limit) * limit**2,
                    "leads": leads if resolved[target] else np.full(len(leads), "not resolved"),
                    "units": step.n,
                    "units_to_resolve": units_for_sign(step, confidence),
                }
            )
        )
    table = pd.concat(parts, ignore_index=True)
    table.attrs["resolved"] = resolved
    return table
