"""Mean squared error of a step's gradient; theory.md (10)."""

from __future__ import annotations

from kvar.analysis.bias import bias_of
from kvar.analysis.replicates import Replicates, Unit, need_pairs, resolve_reference
from kvar.analysis.statistic_table import estimate
from kvar.analysis.step.design import design_replicates, step_variance
from kvar.gradients.moments import GradientMoments
from kvar.intervals.jackknife import Array, Estimate

__all__ = ["mse", "mse_of"]


def mse_of(data: Replicates, reference: int, prompts: float, rollouts_per_prompt: float) -> Array:
    """(1+U, E) |bias|^2 + (between + within / R) / M."""
    return bias_of(data, reference) + step_variance(data, prompts, rollouts_per_prompt)


def mse(
    moments: GradientMoments,
    prompts: float | None = None,
    rollouts_per_prompt: float = 1,
    group: str = "all",
    reference: str | int | None = None,
    unit: Unit = None,
    confidence: float = 0.95,
) -> Estimate:
    """|bias|^2 + (between + within / R) / M for steps of M prompts x R rollouts, (10).

    Args:
        moments: of E estimators, with all fields.
        prompts: M; by default as many as trajectories were measured over R.
        rollouts_per_prompt: R; above 1 it needs prompts measured with two rollouts or more.
        group: parameter group.
        reference: the unbiased estimator; by default the first called K=1 or LLMR, else the first.
        unit: what was drawn independently.
        confidence: of the interval.

    Returns:
        (E,) squared-gradient units; NaN as of :func:`kvar.analysis.bias`.

    Raises:
        ValueError: fields="norms", an impossible design, or (for R > 1) no prompts with two rollouts.
    """
    need_pairs(moments, group, "mse")
    data = design_replicates(moments, group, unit, rollouts_per_prompt)
    m = float(data.n[0].max()) / rollouts_per_prompt if prompts is None else prompts
    error = mse_of(data, resolve_reference(moments.names, reference), m, rollouts_per_prompt)
    return estimate("mse", error, data.units, confidence)
