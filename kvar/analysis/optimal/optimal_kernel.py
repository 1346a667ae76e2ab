"""The kernel that measured moments say is best, and what it is expected to gain; theory.md (25)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from kvar.analysis.optimal.cross_fit import cross_fitted, efficiency_interval, gain_interval
from kvar.analysis.optimal.family import LagFamily, lag_family
from kvar.analysis.optimal.fit import fit_family
from kvar.analysis.optimal.pieces import Pieces, efficiency_of, pieces_of
from kvar.analysis.replicates import Unit
from kvar.analysis.step.best_k import competing
from kvar.estimators import Estimator
from kvar.gradients.moments import GradientMoments
from kvar.intervals.interval import Interval, number
from kvar.intervals.jackknife import Array
from kvar.returns import Kernel

__all__ = ["OptimalKernel", "check_units", "optimal_kernel", "unresolved"]


@dataclass(frozen=True)
class OptimalKernel:
    """A fitted kernel beside the best measured estimator.

    Attributes:
        name: of the estimator to train with: the fitted one where it is expected to gain, else the best measured one;
            None where the target is not resolved.
        fitted: the estimator with the fitted kernel; None where the target is not resolved.
        efficiency: of ``fitted`` for the step, cross-fitted, with its interval.
        listed: name of the measured estimator with the largest efficiency; None where the target is not resolved.
        listed_efficiency: its efficiency, cross-fitted likewise over the choice of the best.
        gain: ``efficiency`` less ``listed_efficiency``, paired. It is right on average; where it is small beside what
            the choice of weights adds in noise its interval is too narrow.
        target: the estimator that stands for g*.
        batch: B.
        rollouts_per_prompt: R.
        weights: of the groups of lags, the first 1; empty where the target is not resolved.
        ridge: shrinkage taken, infinity for none of the fit.
        reason: one sentence on what was decided.
    """

    name: str | None
    fitted: Estimator | None
    efficiency: Interval
    listed: str | None
    listed_efficiency: Interval
    gain: Interval
    target: str
    batch: float
    rollouts_per_prompt: float
    weights: tuple[float, ...]
    ridge: float
    reason: str

    @property
    def resolved(self) -> bool:
        """Whether |g*|^2 of the target is told from zero."""
        return self.fitted is not None

    @property
    def kernel(self) -> Kernel | None:
        """The fitted kernel; None where the target is not resolved."""
        return None if self.fitted is None else self.fitted.kernel

    def __str__(self) -> str:
        """The reason, and the efficiencies beside each other."""
        if self.fitted is None:
            return self.reason
        rows = {self.fitted.name: self.efficiency, str(self.listed): self.listed_efficiency, "gain": self.gain}
        width = max(map(len, rows))
        step = f"efficiency of a step of {number(self.batch)} toward {self.target}, cross-fitted (95 %)"
        return "\n".join([self.reason, step, *(f"  {name:<{width}}  {value}" for name, value in rows.items())])


def optimal_kernel(
    moments: GradientMoments,
    batch: float,
    target: str = "J",
    *,
    rollouts_per_prompt: float = 1,
    among: Iterable[str] | None = None,
    group: str = "all",
    unit: Unit = None,
    confidence: float = 0.95,
) -> OptimalKernel:
    """The weights of groups of lags that give a step the largest efficiency toward a target, (25).

    The measured estimators of :func:`kvar.estimators.lag_estimators` differ in how many lags they count; every kernel
    that is constant between their lengths is a weighted sum of them. All entries of (25) are U-statistics. The weights
    are shrunk toward the best of these estimators by an amount that minimises the estimated error
    (:func:`kvar.analysis.optimal.fit.fitted_weights`), and rounded to three digits, so that the kernel has a short name
    that reads back. Its efficiency, that of the best measured estimator and the gain are cross-fitted: each unit
    (prompt or trajectory) is judged by weights that were fitted without it.

    On enumerable MDPs, five groups fitted to 240 trajectories, claims were those of the true efficiency on average, and
    95 % intervals covered it in 86 to 96 % of 50 fits, that of the gain in 54 to 94 %; with 96 trajectories claims were
    low by up to 0.04, and intervals covered in 74 to 94 % and 80 to 94 %.

    Args:
        moments: of E estimators, those by lag among them, with all fields.
        batch: B, trajectories a step.
        target: an objective ("J", "J_kl", "score") or a measured estimator, "data" for instance, see
            :func:`kvar.analysis.toward`.
        rollouts_per_prompt: R of the step; above 1 it needs prompts measured with two rollouts or more.
        among: names of the estimators by lag, where several sets of them are measured.
        group: parameter group.
        unit: what was drawn independently.
        confidence: of the intervals.

    Returns:
        The fitted estimator with its expected efficiency. Train with ``.name``. Where |g*|^2 of the target is not
        told from zero (its 95 % interval reaches 0), nothing is fitted, and ``reason`` says so.

    Raises:
        ValueError: fields="norms", no estimators by lag, fewer units than twice the groups of lags, a batch below 1 or
            rollouts below 1, a target that is not measured, or (for R > 1) no prompts with two rollouts.

    Example:
        >>> import torch
        >>> from kvar.analysis.exact.table import moments_of
        >>> noise = torch.randn(2, 400, 3, generator=torch.Generator().manual_seed(0))
        >>> now, later = 1 + noise[0], 1 + 2 * noise[1]  # A = [[3.75, 3], [3, 6]], m = (6, 6), A^-1 m ~ (1, 0.25)
        >>> moments = moments_of(torch.stack([now, now + later]), names=["gap immediate", "gap K=1"])
        >>> best = optimal_kernel(moments, batch=4)
        >>> best.listed, best.name.startswith("gap stepwise(1:"), abs(best.weights[1] - 0.25) < 0.1
        ('gap immediate', True, True)
    """
    pieces = pieces_of(moments, batch, target, rollouts_per_prompt, group, unit, "optimal_kernel")
    family = lag_family(moments.names, among)
    check_units(family, pieces)
    step = (pieces.reference, float(batch), float(rollouts_per_prompt))
    if not pieces.resolved:
        unknown = Interval(np.nan, n=pieces.units)
        return OptimalKernel(None, None, unknown, None, unknown, unknown, *step, (), np.nan, unresolved(pieces))
    names, count = moments.names, len(moments.names)
    weights, ridges = fit_family(pieces, family)
    listed = _best_of(pieces, competing(names))
    of_fitted = cross_fitted(pieces, weights @ family.groups(count))
    of_listed = cross_fitted(pieces, np.eye(count)[listed])
    rounded, ridge = family.rounded(weights[0]), float(ridges[0])
    fitted, best = family.estimator(rounded), names[listed[0]]
    gain = gain_interval(of_fitted, of_listed, confidence)
    chosen = fitted.name if gain.value > 0 and np.isfinite(ridge) else best
    return OptimalKernel(
        chosen,
        fitted,
        efficiency_interval(of_fitted, confidence),
        best,
        efficiency_interval(of_listed, confidence),
        gain,
        *step,
        tuple(map(float, rounded)),
        ridge,
        _reason(chosen, fitted.name, best, gain, ridge),
    )


def check_units(family: LagFamily, pieces: Pieces) -> None:
    """Refuse a fit to few units.

    Raises:
        ValueError: fewer units than twice the groups of lags.
    """
    groups = len(family.numbers)
    if pieces.units < 2 * groups:
        raise ValueError(
            f"{groups} groups of lags are fitted to {pieces.units} prompts or trajectories: measure at least "
            f"{2 * groups}, or fewer lags (lag_estimators(lengths=...))."
        )


def unresolved(pieces: Pieces) -> str:
    """One sentence on a target that is not resolved."""
    return (
        f"The target {pieces.reference} is not resolved: its |g*|^2 is not told from zero by {pieces.units} prompts or "
        "trajectories. Keep the estimator that you have, or measure more prompts."
    )


def _best_of(pieces: Pieces, taking_part: Array) -> Array:
    """(1+U,) the measured estimator of largest efficiency, with all units and without each."""
    units = np.eye(len(taking_part))[None]
    each = efficiency_of(units, pieces.power[:, None], pieces.toward[:, None], pieces.true[:, None])
    return np.argmax(np.where(taking_part & np.isfinite(each), each, -np.inf), axis=1)


def _reason(chosen: str, fitted: str, listed: str, gain: Interval, ridge: float) -> str:
    if np.isinf(ridge):
        return f"Fitted weights of the lags promise nothing beyond {listed}: take it."
    if chosen == listed:
        return f"The fitted kernel is not expected to gain on {listed}, the best measured estimator: take that one."
    sure = "resolved" if gain.low > 0 else "expected but not resolved"
    return f"Take {fitted}: its gain on {listed}, the best measured estimator, is {sure}."
