"""Tests of whether a batch is large enough for its gradient: the norm test and the inner-product test."""

from __future__ import annotations

import numpy as np

from kvar.analysis.replicates import Unit, need_pairs, replicates
from kvar.analysis.signal import signal_of
from kvar.analysis.statistic_table import estimate
from kvar.analysis.trace_covariance import trace_of
from kvar.gradients.moments import GradientMoments
from kvar.intervals.jackknife import Estimate, jackknife

__all__ = ["inner_product_test", "norm_test"]


def norm_test(
    moments: GradientMoments, batch: float, group: str = "all", unit: Unit = None, confidence: float = 0.95
) -> Estimate:
    """Squared relative error of a batch's mean, tr Cov / (B |E g|^2) (Byrd, Chin, Nocedal and Wu 2012).

    The test at theta asks for a value of at most theta^2; the batch that meets it is
    ``noise_scale(moments).value / theta**2`` trajectories. Only noise counts: a biased kernel passes as well as an
    unbiased one (hold ``efficiency`` beside it).

    Args:
        moments: of E estimators.
        batch: B, trajectories a step.
        group: parameter group.
        unit: what was drawn independently.
        confidence: of the interval.

    Returns:
        (E,) pure numbers; negative where the signal is not resolved.

    Raises:
        ValueError: a batch that is not positive, or as :func:`kvar.analysis.signal.signal`.
    """
    _check(batch)
    data = replicates(moments, group, unit)
    with np.errstate(all="ignore"):
        ratio = trace_of(data) / (batch * signal_of(data))
    return estimate("norm_test", ratio, data.units, confidence)


def inner_product_test(
    moments: GradientMoments, batch: float, group: str = "all", confidence: float = 0.95
) -> Estimate:
    """Relative variance along the gradient alone, Var <g_i, E g> / (B |E g|^4) (Bollapragada, Byrd and Nocedal 2018).

    The test at theta asks for a value of at most theta^2; it needs far smaller batches than the norm test, since it
    looks at one direction of Cov(g), not at its trace. <g_i, E g> is estimated by the mean of the other trajectories,
    which keeps g_i's own square out; noise in that mean adds about tr(Cov^2) / ((N-1) |E g|^4) / B, so the value errs
    upwards (the test is conservative) until N is well above the noise scale.

    Args:
        moments: of E estimators, with all fields.
        batch: B, trajectories a step.
        group: parameter group.
        confidence: of the interval, by leaving trajectories out of the variance and of |E g|^2.

    Returns:
        (E,) pure numbers.

    Raises:
        ValueError: a batch that is not positive, fields="norms", or fewer than three trajectories.
    """
    _check(batch)
    need_pairs(moments, group, "inner_product_test")
    data = replicates(moments, group, "trajectory")
    n = data.units
    if n < 3:
        raise ValueError(f"the inner-product test needs at least three trajectories; these moments hold {n}.")
    measured = moments[group]
    assert measured.alignment is not None  # need_pairs
    along = ((n * measured.alignment - measured.sq_norm) / (n - 1)).numpy()  # (E, N)
    total, squares = along.sum(axis=1), (along**2).sum(axis=1)
    sums = np.concatenate([total[None], (total[:, None] - along).T])
    second = np.concatenate([squares[None], (squares[:, None] - along**2).T])
    count = data.n
    with np.errstate(all="ignore"):
        variance = (second - sums**2 / count) / (count - 1)
        ratio = variance / (batch * signal_of(data) ** 2)
    return jackknife(ratio, n, confidence, scale="log")


def _check(batch: float) -> None:
    if not batch > 0:
        raise ValueError(f"batch must be a positive number of trajectories; got {batch!r}.")
