"""From how many trajectories on a less biased estimator points better than a quieter one; theory.md (30)."""

from __future__ import annotations

import math

import numpy as np

from kvar.analysis.frames.reference import default_reference
from kvar.analysis.replicates import Replicates, Unit, need_pairs
from kvar.analysis.signal import signal_of, told_from_zero
from kvar.analysis.step.design import check_design, design_replicates, step_variance
from kvar.analysis.step.efficiency import signed_square
from kvar.gradients.moments import GradientMoments
from kvar.intervals.fieller import ratio_of_means
from kvar.intervals.interval import Interval
from kvar.intervals.jackknife import Array, pseudo_values
from kvar.intervals.quantiles import check_confidence

__all__ = ["crossing", "lead_of", "overtakes"]


def overtakes(
    moments: GradientMoments,
    estimator: str,
    other: str,
    target: str = "J",
    *,
    rollouts_per_prompt: float = 1,
    group: str = "all",
    unit: Unit = None,
    confidence: float = 0.95,
) -> Interval:
    """The number of trajectories B beyond which a step of ``estimator`` points better than one of ``other``, (30).

    With c the cosine of the mean gradient to g*, (26), and rv = tr Cov / |E g|^2, the efficiency (11') is
    c^2 / (1 + rv / B). So that of a first estimator is larger than that of a second, quieter and more biased, for

        B > B_x = (c2^2 rv1 - c1^2 rv2) / (c1^2 - c2^2).

    The mean gradient of S steps of B trajectories at the same weights is that of one step of S B, so B_x / B steps is
    also how long a run has to be before its displacement points better, as far as weights hardly change meanwhile.

    With a_e = <E g^e, g*>, s_e = |E g^e|^2 and v_e / B the variance of a step's mean, estimator 1 leads where the line
    D = A B + C, which has the sign of the difference in efficiency, is above 0:

        A = a_1 |a_1| s_2 - max(a_2, 0)^2 s_1,    C = a_1 |a_1| v_2 - max(a_2, 0)^2 v_1,    B_x = -C / A.

    An ``other`` that leads away counts as one that leads nowhere, so that an estimator that leads away never overtakes.
    The interval is Fieller's, of :func:`kvar.intervals.ratio_of_means`: all B for which D is not told from 0. It is
    formed from the jackknife's pseudo-values of A and C, whose means are free of bias of order 1/N. Before that both
    are divided by |g*|^2 s_1 s_2, so that the noise that they have in common cancels; in place of an s that is not told
    from 0 stands |gbar|^2, which is never near 0, and B_x depends on neither.

    On token MDPs of 4 to 16 parameters 95 % intervals from 256 trajectories held B_x in 93 to 97 % of 400 draws where
    it is above 0 (6 to 146), and in 99.8 to 100 % where it is 0: ``python -m tests.analysis.overtakes_coverage 400``.
    With 64 and with 1024 trajectories (``... 300 64 1024``) it was 94 to 98 % and 99 to 100 %. The lower end errs more
    often than the upper: where the bias is hardly resolved the interval lies above B_x in up to 6 %.

    Args:
        moments: of E estimators, with all fields, the target among them.
        estimator: name of the first, less biased as a rule.
        other: name of the second.
        target: an objective or a measured estimator, see :func:`kvar.analysis.toward`.
        rollouts_per_prompt: R; above 1 a step is B / R prompts x R rollouts, of variance (10).
        group: parameter group.
        unit: what was drawn independently.
        confidence: of the interval.

    Returns:
        B_x, in trajectories. A value of 0 says that ``estimator`` leads at every B; inf, that there is no B beyond
        which it leads. Below ``low`` it does not lead and beyond ``high`` it does, at the confidence given: a ``low``
        of 0 says that it may lead at every B, a ``high`` of inf that it may never, and both that the data tell nothing;
        ``low`` is inf too where it surely never leads beyond. All are NaN where the target is not resolved (the lower
        end of the 95 % interval of |g*|^2 is not above 0).

    Raises:
        ValueError: an estimator or target that is not measured, the same estimator twice, a confidence outside (0, 1),
            or as :func:`kvar.analysis.efficiency`.

    Example:
        >>> import torch
        >>> from kvar.analysis.exact.table import moments_of
        >>> noise = torch.tensor([[4.0, 0], [-4, 0], [0, 4], [0, -4]]).repeat(500, 1)
        >>> noisy, quiet = torch.tensor([1.0, 0]) + noise, torch.tensor([1.0, 1]) + noise / 4
        >>> moments = moments_of(torch.stack([noisy, quiet]), names=["K=1", "K=4"])
        >>> found = overtakes(moments, "K=1", "K=4")  # c^2 = 1 and 1/2, rv = 16 and 1/2: (8 - 1/2) / (1/2) = 15
        >>> bool(found.low < 15 < found.high), abs(found.value - 15) < 1
        (True, True)
        >>> overtakes(moments, "K=4", "K=1").value
        inf
    """
    check_confidence(confidence)
    need_pairs(moments, group, "overtakes")
    check_design(1, rollouts_per_prompt)
    if estimator == other:
        raise ValueError(f"estimator and other are both {other!r}: name two estimators.")
    first, second = (_number(moments.names, name) for name in (estimator, other))
    reference = moments.names.index(default_reference(moments.names, target))
    data = design_replicates(moments, group, unit, rollouts_per_prompt)
    if not told_from_zero(data)[reference]:
        return Interval(math.nan, math.nan, math.nan, data.units)
    noise = rollouts_per_prompt * step_variance(data, 1, rollouts_per_prompt)
    lead = lead_of(data, reference, (first, second), (noise[:, first], noise[:, second]))
    return crossing(pseudo_values(lead), confidence)


def lead_of(data: Replicates, reference: int, pair: tuple[int, int], variances: tuple[Array, Array]) -> Array:
    """(1+U, 2) A and C: the first of a pair leads at B where A B + C > 0, see :func:`overtakes`.

    Args:
        data: the sums.
        reference: number of the estimator that stands for g*, |g*|^2 being resolved.
        pair: numbers of the two estimators.
        variances: (1+U,) of each, B times tr Cov of a step's mean.
    """
    signal = data.signal()
    along = signal[:, list(pair), reference].T
    ours, theirs = signed_square(along[0]), np.maximum(along[1], 0.0) ** 2
    ahead = [ours * two - theirs * one for one, two in (signal[:, pair, pair].T, variances)]
    with np.errstate(all="ignore"):
        lengths = np.where(told_from_zero(data), signal_of(data), np.diagonal(data.total, axis1=1, axis2=2) / data.n**2)
        return np.asarray(np.stack(ahead, axis=1) / lengths[:, [*pair, reference]].prod(axis=1, keepdims=True))


def crossing(lead: Array, confidence: float = 0.95) -> Interval:
    """Where the line A B + C becomes positive for good, of B >= 0, as :func:`overtakes` reports it.

    Args:
        lead: (U, 2) pseudo-values of A and C, or one row a seed.
        confidence: of the interval.

    >>> line = np.array([[1.0, -5.0], [1.1, -5.2], [0.9, -4.8], [1.0, -5.0]])
    >>> str(crossing(line))
    '5 (4.7 to 5.4)'
    >>> [crossing(line * sign).value for sign in ([1, -1], [-1, 1], [-1, -1])]
    [0.0, inf, inf]
    """
    units = len(lead)
    if not np.isfinite(lead).all():
        return Interval(math.nan, math.nan, math.nan, units)
    slope, offset = (lead / (np.abs(lead).max() or 1.0)).T
    value = _root(float(slope.mean()), float(offset.mean()))
    if units < 2:
        return Interval(value, n=units)
    low, high = ratio_of_means(-offset, slope, confidence)[1:]
    if math.isfinite(low) and math.isfinite(high):
        surely = slope.mean() > 0
        ends = (max(low, 0.0), max(high, 0.0)) if surely else (math.inf, math.inf)
        return Interval(value, *ends, units)
    most = ratio_of_means(slope, -offset, confidence)[2]  # of 1 / B_x
    behind = math.isfinite(most) and offset.mean() < 0
    return Interval(value, (1 / most if most > 0 else math.inf) if behind else 0.0, math.inf, units)


def _root(slope: float, offset: float) -> float:
    if slope > 0:
        return max(-offset / slope, 0.0)
    return 0.0 if slope == 0 and offset > 0 else math.inf


def _number(names: tuple[str, ...], name: str) -> int:
    if name not in names:
        raise ValueError(f"{name!r} is none of the estimators measured, {', '.join(names)}.")
    return names.index(name)
