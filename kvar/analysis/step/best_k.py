"""Which kernel serves a given step best; theory.md (10), (11), (11')."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kvar.analysis.replicates import Replicates, Unit, need_pairs, resolve_reference
from kvar.analysis.statistic_table import estimate
from kvar.analysis.step.design import design_replicates
from kvar.analysis.step.efficiency import direction_of, efficiency_estimate, signed_square
from kvar.analysis.step.mse import mse_of
from kvar.estimators import DATA
from kvar.gradients.moments import GradientMoments
from kvar.intervals.probability_of_best import candidates, probability_of_best, units_to_resolve

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["best_k", "best_k_of", "competing", "without_intervals"]


def best_k(
    moments: GradientMoments,
    prompts: float,
    rollouts_per_prompt: float = 1,
    group: str = "all",
    reference: str | int | None = None,
    unit: Unit = None,
    confidence: float = 0.95,
    seed: int = 0,
    among: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Mean squared error (10) and efficiency (11') of every estimator for steps of M prompts x R rollouts, (11).

    The error is what plain SGD at a fixed learning rate feels; the efficiency, free of scale, what is left when the
    learning rate is tuned or normalised (Adam). The smallest error and the largest efficiency are the two answers to
    "which K"; how sure they are is the share of bootstrap draws, by the interval's unit, in which each wins. A short
    gradient has a small error whatever its direction, and a gradient of zero has the error |g*|^2: where |g*|^2 is not
    told from zero the smallest error says nothing of the direction, and no probability is given.

    On enumerable MDPs these shares are right as often as they say (a test holds them to it), with two exceptions. At
    64 trajectories claims near 0 and 1 are too sure by up to 0.05. Where a few rare responses carry most of the
    variance (policies and teachers of 2.5 times the usual spread), what a sample lacks it cannot count: a kernel said
    to have the largest efficiency with 0.99 had it in 0.85, 0.94 and 0.96 of the cases at 64, 128 and 512
    trajectories, one said to have the smallest error in 0.97, 0.99 and 0.98.

    Args:
        moments: of E estimators, with all fields.
        prompts: M.
        rollouts_per_prompt: R; above 1 it needs prompts measured with two rollouts or more.
        group: parameter group.
        reference: the unbiased estimator; by default the first called K=1 or LLMR, else the first.
        unit: what was drawn independently.
        confidence: of the intervals.
        seed: of the bootstrap.
        among: the estimators that compete; by default all but ``data`` (:func:`kvar.estimators.with_references`), which
            is a target.

    Returns:
        A table with one row per estimator: kernel, mse, mse_low, mse_high, mse_best (probability), efficiency,
        efficiency_low, efficiency_high, efficiency_best (probability). Both probabilities are NaN throughout where the
        reference's |g*|^2 is not resolved (an estimate, with or without one unit, that is not positive), and NaN for an
        estimator that does not compete or has no finite value. (That is less than :func:`kvar.analysis.toward` asks:
        |g*|^2 scales all efficiencies alike, so that which is largest does not depend on how well it is known. Noise of
        mean 0 may so have probabilities; that it is hardly ever told as the best by efficiency, a test of targets
        says.)
        ``table.attrs`` holds under "candidates_mse" and "candidates_efficiency" the estimators that cannot be told
        apart as the best, each with its probability (:func:`kvar.intervals.candidates`); under "best_mse" and
        "best_efficiency" the one that is left, None where there are several or none; "units", how many units were
        measured; and "units_mse" and "units_efficiency", how many would tell each winner from all others
        (:func:`kvar.intervals.units_to_resolve`).

    Raises:
        ValueError: as :func:`kvar.analysis.mse`, or an estimator in ``among`` that was not measured.
    """
    need_pairs(moments, group, "best_k")
    data = design_replicates(moments, group, unit, rollouts_per_prompt)
    r = resolve_reference(moments.names, reference)
    return best_k_of(data, r, prompts, rollouts_per_prompt, confidence, seed, among)


def best_k_of(
    data: Replicates,
    reference: int,
    prompts: float,
    rollouts_per_prompt: float = 1,
    confidence: float = 0.95,
    seed: int = 0,
    among: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The table of :func:`best_k` from replicates, which serve every design of one measurement.

    Args:
        data: of :func:`kvar.analysis.step.design.design_replicates`.
        reference: number of the unbiased estimator.
        prompts: M.
        rollouts_per_prompt: R.
        confidence: of the intervals.
        seed: of the bootstrap.
        among: the estimators that compete.
    """
    import pandas as pd

    errors = mse_of(data, reference, prompts, rollouts_per_prompt)
    directions = direction_of(data, reference, prompts, rollouts_per_prompt)
    error = estimate("mse", errors, data.units, confidence)
    along = efficiency_estimate(directions, confidence)
    resolved = np.isfinite(directions[:, reference]).all()
    compared = resolved & competing(data.names, among)
    errors, squares = (np.where(compared, x, np.nan) for x in (errors, signed_square(directions)))
    table = pd.DataFrame(
        {
            "kernel": data.names,
            "mse": error.value,
            "mse_low": error.low,
            "mse_high": error.high,
            "mse_best": probability_of_best(errors, smallest=True, seed=seed),
            "efficiency": along.value,
            "efficiency_low": along.low,
            "efficiency_high": along.high,
            "efficiency_best": probability_of_best(squares, smallest=False, seed=seed),
        }
    )
    for name in ("mse", "efficiency"):
        left = candidates(dict(zip(data.names, table[f"{name}_best"], strict=True)))
        table.attrs |= {f"candidates_{name}": left, f"best_{name}": next(iter(left)) if len(left) == 1 else None}
    table.attrs["units"] = data.units
    table.attrs["units_mse"] = units_to_resolve(errors, smallest=True)
    table.attrs["units_efficiency"] = units_to_resolve(squares, smallest=False)
    return table


def competing(names: Sequence[str], among: Sequence[str] | None = None) -> np.ndarray:
    """(E,) bool, the estimators that compete: those named, or all but ``data``.

    Raises:
        ValueError: one that is not measured.
    """
    if missing := [name for name in among or () if name not in names]:
        raise ValueError(f"among: {missing[0]!r} is none of the estimators {', '.join(names)}.")
    return np.array([name != DATA if among is None else name in among for name in names])


def without_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """The table of :func:`best_k` with NaN for intervals and probabilities: too few prompts tell neither."""
    out = table.assign(**{str(name): np.nan for name in table if str(name).endswith(("_low", "_high", "_best"))})
    for name in ("mse", "efficiency"):
        out.attrs |= {f"candidates_{name}": {}, f"best_{name}": None, f"units_{name}": np.nan}
    return out
