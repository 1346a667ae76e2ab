"""Ratios and differences between estimators on the same trajectories."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kvar.analysis.replicates import resolve_reference
from kvar.gradients.moments import GradientMoments
from kvar.intervals.jackknife import Array, Estimate, jackknife

__all__ = ["difference_to", "ratio_of", "ratio_to"]


def ratio_to(
    moments: GradientMoments,
    statistic: Callable[..., Estimate],
    reference: str | int | None = None,
    confidence: float = 0.95,
    **options: Any,
) -> Estimate:
    """A statistic of every estimator over the reference's, paired: each unit is left out of both at once.

    Args:
        moments: of E estimators.
        statistic: a function of this package, for instance ``trace_covariance``.
        reference: name or number; by default the first estimator called K=1 or LLMR, else the first.
        confidence: of the interval, formed for the logarithm where all replicates are positive.
        options: passed to the statistic (group, unit, ...).

    Returns:
        (E,) pure numbers; exactly 1, without width, for the reference.

    Raises:
        ValueError: an unknown reference, or what the statistic refuses.
    """
    stacked, units = _stacked(moments, statistic, options)
    return jackknife(ratio_of(stacked, resolve_reference(moments.names, reference)), units, confidence, scale="log")


def ratio_of(replicated: Array, reference: int) -> Array:
    """(1+U, E) a statistic of every estimator over the reference's, the same units left out of both."""
    with np.errstate(all="ignore"):
        return np.asarray(replicated / replicated[:, reference : reference + 1])


def difference_to(
    moments: GradientMoments,
    statistic: Callable[..., Estimate],
    reference: str | int | None = None,
    confidence: float = 0.95,
    **options: Any,
) -> Estimate:
    """A statistic of every estimator less the reference's, paired as in :func:`ratio_to`.

    Args:
        moments: of E estimators.
        statistic: a function of this package.
        reference: name or number; by default the first estimator called K=1 or LLMR, else the first.
        confidence: of the interval.
        options: passed to the statistic.

    Returns:
        (E,) in the statistic's units; exactly 0 for the reference.

    Raises:
        ValueError: an unknown reference, or what the statistic refuses.
    """
    stacked, units = _stacked(moments, statistic, options)
    r = resolve_reference(moments.names, reference)
    return jackknife(stacked - stacked[:, r : r + 1], units, confidence, scale="root")


def _stacked(
    moments: GradientMoments, statistic: Callable[..., Estimate], options: dict[str, Any]
) -> tuple[Array, int]:
    whole = statistic(moments, **options)
    rows = [whole.value[None]] if whole.replicates is None else [whole.value[None], whole.replicates]
    return np.concatenate(rows), whole.n
