"""Variance within and between prompts; theory.md (9)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from kvar.analysis.replicates import Replicates, Unit, replicates
from kvar.analysis.statistic_table import estimate
from kvar.analysis.step.design import within_of
from kvar.analysis.trace_covariance import trace_of
from kvar.gradients.moments import GradientMoments
from kvar.intervals.jackknife import Array, Estimate

__all__ = ["Decomposition", "decompose", "decomposition_of", "within_share", "within_share_of"]


class Decomposition(NamedTuple):
    """The two parts of tr Cov(g); their values add up to :func:`kvar.analysis.trace_covariance.trace_covariance`'s."""

    within: Estimate
    between: Estimate


def decompose(
    moments: GradientMoments,
    prompt_index: Tensor | None = None,
    group: str = "all",
    unit: Unit = None,
    confidence: float = 0.95,
) -> Decomposition:
    """Split tr Cov(g) into E_x tr Cov(g | x) and tr Cov_x E[g | x], (9).

    "within" is the unbiased variance among rollouts of one prompt, pooled by their numbers over the prompts that have
    two or more. "between" is the whole, (12), less "within", so that the parts add up exactly; it may be negative.
    With M prompts x R rollouts (12) as written makes "between" too small by a factor (M-1)R/(MR-1);
    ``unit="prompt"`` removes that. Intervals leave out one prompt at a time, so they need many prompts.

    Args:
        moments: of E estimators, with all fields.
        prompt_index: (N,) as measured (any numbering); None takes the measurement's own.
        group: parameter group.
        unit: None or "prompt".
        confidence: of the intervals.

    Returns:
        The pair (within, between), each (E,) in squared-gradient units.

    Raises:
        ValueError: fewer than two prompts with two rollouts, another grouping than the measurement's, fields="norms",
            or unit="trajectory".
    """
    if unit == "trajectory":
        raise ValueError("unit='trajectory' cannot tell prompts apart: leave unit None or use 'prompt'.")
    if prompt_index is not None:
        _check_same_grouping(moments, prompt_index)
    return decomposition_of(replicates(moments, group, unit, by_prompt=True), confidence)


def decomposition_of(data: Replicates, confidence: float = 0.95) -> Decomposition:
    """The two parts from replicates that leave prompts out."""
    whole, within = trace_of(data), within_of(data)
    return Decomposition(
        within=estimate("within", within, data.units, confidence),
        between=estimate("between", whole - within, data.units, confidence),
    )


def within_share_of(data: Replicates) -> Array:
    """(1+U, E) within / (within + between), from replicates that leave prompts out."""
    with np.errstate(all="ignore"):
        return np.asarray(within_of(data) / trace_of(data))


def within_share(moments: GradientMoments, group: str = "all", unit: Unit = None, confidence: float = 0.95) -> Estimate:
    """Share within / (within + between), (9): the part of tr Cov(g) that is the policy's own sampling noise.

    Args:
        moments: of E estimators, with all fields.
        group: parameter group.
        unit: None or "prompt".
        confidence: of the interval.

    Returns:
        (E,) shares; above 1 where "between" is estimated negative.

    Raises:
        ValueError: as :func:`decompose`.
    """
    data = replicates(moments, group, unit, by_prompt=True)
    return estimate("within_share", within_share_of(data), data.units, confidence)


def _check_same_grouping(moments: GradientMoments, prompt_index: Tensor) -> None:
    ours, given = moments.prompt_index.numpy(), np.asarray(prompt_index)
    same = ours.shape == given.shape
    if same:
        pairs = len(set(zip(ours.tolist(), given.tolist(), strict=True)))
        same = pairs == len(set(ours.tolist())) == len(set(given.tolist()))
    if not same:
        raise ValueError(
            f"prompt_index of shape {given.shape} groups the trajectories otherwise than the measurement did "
            f"({len(ours)} trajectories, {len(np.unique(ours))} prompts): set Rollouts.prompt_index before measuring."
        )
