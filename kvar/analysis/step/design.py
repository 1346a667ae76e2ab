"""Variance of a step's gradient under a design of M prompts x R rollouts; theory.md (9), (10)."""

from __future__ import annotations

import numpy as np

from kvar.analysis.replicates import Replicates, Unit, replicates
from kvar.gradients.moments import GradientMoments
from kvar.intervals.jackknife import Array

__all__ = ["check_design", "design_replicates", "prompts_of", "step_covariance", "step_variance", "within_of"]


def check_design(prompts: float, rollouts_per_prompt: float) -> None:
    """Refuse a design without prompts or rollouts.

    Raises:
        ValueError: a number below 1.
    """
    for name, value in (("prompts", prompts), ("rollouts_per_prompt", rollouts_per_prompt)):
        if not value >= 1:
            raise ValueError(f"{name} must be at least 1; got {value!r}.")


def prompts_of(batch: float, rollouts_per_prompt: float) -> float:
    """M = B / R, the prompts of a step of B trajectories.

    Raises:
        ValueError: R below 1, or a batch below R.
    """
    check_design(1, rollouts_per_prompt)
    if not batch >= rollouts_per_prompt:
        raise ValueError(
            f"batch must be at least rollouts_per_prompt, {rollouts_per_prompt}, the trajectories of one prompt; got "
            f"{batch!r}."
        )
    return batch / rollouts_per_prompt


def within_of(data: Replicates) -> Array:
    """(1+U, E) E_x tr Cov(g | x), (9)."""
    return np.asarray(np.diagonal(data.within(), axis1=1, axis2=2))


def design_replicates(moments: GradientMoments, group: str, unit: Unit, rollouts_per_prompt: float) -> Replicates:
    """Replicates from which :func:`step_variance` can be told: by prompt where R > 1 asks for (9)."""
    if rollouts_per_prompt > 1 and unit == "trajectory":
        raise ValueError(
            "rollouts_per_prompt > 1 splits the variance by prompt, so unit='trajectory' cannot serve: leave unit None."
        )
    return replicates(moments, group, unit, by_prompt=rollouts_per_prompt > 1)


def step_covariance(data: Replicates, prompts: float, rollouts_per_prompt: float) -> Array:
    """(1+U, E, E) tr Cov of the means of two estimators over M prompts x R rollouts: (between + within / R) / M."""
    check_design(prompts, rollouts_per_prompt)
    covariance = data.covariance()
    if rollouts_per_prompt == 1:
        return covariance / prompts
    within = data.within()
    return np.asarray((covariance - within + within / rollouts_per_prompt) / prompts)


def step_variance(data: Replicates, prompts: float, rollouts_per_prompt: float) -> Array:
    """(1+U, E) tr Cov of the mean over M prompts x R rollouts, the diagonal of :func:`step_covariance`."""
    return np.asarray(np.diagonal(step_covariance(data, prompts, rollouts_per_prompt), axis1=1, axis2=2))
