"""How many prompts tell where each estimator leads, planned from a first, small measurement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kvar.analysis.bias import need_pairs
from kvar.analysis.frames.reference import default_reference
from kvar.analysis.replicates import Unit
from kvar.analysis.signal import signal_of
from kvar.analysis.statistic_table import estimate
from kvar.analysis.step.design import check_design, design_replicates, prompts_of
from kvar.analysis.step.efficiency import direction_of, efficiency_estimate
from kvar.analysis.targets import units_for_sign
from kvar.gradients.moments import GradientMoments

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["plan"]


def plan(
    moments: GradientMoments,
    target: str,
    batch: float = 64,
    *,
    power: float = 0.8,
    rollouts_per_prompt: float = 1,
    group: str = "all",
    unit: Unit = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """How many prompts a fresh measurement takes to tell whether a step of each estimator leads toward the target.

    The efficiency of :func:`kvar.analysis.toward` has to differ from 0, and |g*|^2 of the target too. The estimates of
    the pilot are taken for the truth, and errors to fall as one over the root of the prompts.

    Measure the planned number anew, on other prompts, and take the intervals of that measurement alone: its size does
    not depend on its numbers, so they cover as often as they say. Adding prompts until an interval happens to exclude 0
    does not: a sign that is not there is then told in 14 % of cases after five equal looks, in 19 % after ten
    (Armitage, McPherson and Rowe 1969).

    Args:
        moments: of the pilot.
        target: an estimator's name, for instance "data", or an objective ("J", "J_kl", "score").
        batch: B, trajectories a step.
        power: probability with which the fresh measurement is to tell each of the two, were the pilot the truth.
        rollouts_per_prompt: R of the step.
        group: parameter group.
        unit: what was drawn independently.
        confidence: of the intervals.

    Returns:
        A row an estimator: estimator; efficiency with its interval, NaN as in ``toward`` where the pilot does not
        resolve the target; units, those of the pilot; units_needed, infinity
        where the pilot does not tell, and never fewer than the pilot's: how errors grow below them it does not say.
        ``attrs`` hold target, reference and ``target_units``, what the target's |g*|^2 needs.

    Raises:
        ValueError: a power outside (0, 1), or as :func:`kvar.analysis.toward`.
    """
    import pandas as pd

    if not isinstance(power, (int, float)) or not 0 < power < 1:
        raise ValueError(f"power must lie between 0 and 1; got {power!r}. Use 0.8 to tell in four cases of five.")
    need_pairs(moments, group, "plan")
    prompts = prompts_of(batch, rollouts_per_prompt)
    check_design(prompts, rollouts_per_prompt)
    reference = default_reference(moments.names, target)
    number = moments.names.index(reference)
    data = design_replicates(moments, group, unit, rollouts_per_prompt)
    size = estimate("signal", signal_of(data), data.units, confidence)[number : number + 1]
    least = units_for_sign(size, confidence, power)[0] if size.value[0] > 0 else np.inf
    step = efficiency_estimate(direction_of(data, number, prompts, rollouts_per_prompt), confidence)
    needed = np.maximum(np.nan_to_num(units_for_sign(step, confidence, power), nan=np.inf), max(least, step.n))
    known = 1.0 if size.low[0] > 0 else np.nan
    table = pd.DataFrame(
        {
            "estimator": moments.names,
            "efficiency": step.value * known,
            "efficiency_low": step.low * known,
            "efficiency_high": step.high * known,
            "units": step.n,
            "units_needed": np.ceil(needed),
        }
    )
    table.attrs |= {"target": target, "reference": reference, "target_units": float(np.ceil(least))}
    return table
