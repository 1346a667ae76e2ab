"""All numbers of one advice, from probes of a run or of its seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from kvar.analysis.frames.measured import sampling_unit
from kvar.analysis.frames.reference import default_reference
from kvar.analysis.optimal.beside import Fitted, fitted_beside
from kvar.analysis.optimal.family import LagFamily, lag_family
from kvar.gradients.recombine import recombine
from kvar.intervals import Interval
from kvar.results.advice.budget import Budget, Sums, sums_of
from kvar.results.advice.estimators import Ranking, rank
from kvar.results.advice.overtaking import Overtaking, overtaking
from kvar.results.advice.splits import Split, bias_limit, snr_at, split_of
from kvar.results.probes import Probe
from kvar.results.target_units import target_units

__all__ = ["AdviceNumbers", "advice_numbers"]


@dataclass(frozen=True)
class AdviceNumbers:
    """What a step should be made of, and how sure that is.

    Attributes:
        places: the probes.
        step: training step of the probes.
        steps: of the whole training, where known.
        group: parameter group.
        reference: the estimator that stands for g*.
        budget: of one step, and the number of steps whose mean all efficiencies, noise and SNR are of.
        batch: trajectories of the run's own step.
        prompts: measured.
        rollouts: smallest and largest number of responses measured for a prompt.
        units: how many units intervals rest on.
        unit: "prompts", "responses" or "seeds".
        current: the estimator that the run trains with; None where it is not known.
        estimator: the advised one.
        ranking: of the measured estimators.
        split: its prompts x responses.
        snr: of the advised step, or of the mean of the budget's steps.
        limit: its efficiency without noise: 1 less the bias; NaN where the target is not resolved.
        efficiency: of the advised step, or of the mean of the budget's steps.
        fitted: a kernel fitted to estimators by lag; None where none were measured.
        unfitted: why estimators by lag were measured and no kernel fitted.
        target_units: prompts that would resolve the target, at 0.8 power; NaN where it is resolved.
        again: how it is measured again on {count} prompts, for a reader.
        overtaking: from how many steps on a less biased estimator points better, (30); None where the advised one is
            the least biased, or nothing is told.
        over_training: training step -> the estimator that another probe of the run advises; None for nothing told.
    """

    places: tuple[str, ...]
    step: int
    steps: int | None
    group: str
    reference: str
    budget: Budget
    batch: float
    prompts: int
    rollouts: tuple[int, int]
    units: int
    unit: str
    current: str | None
    estimator: str
    ranking: Ranking
    split: Split
    snr: Interval
    limit: Interval
    efficiency: Interval
    fitted: Fitted | None = None
    unfitted: str = ""
    target_units: float = math.nan
    again: str = ""
    overtaking: Overtaking | None = None
    over_training: tuple[tuple[int, str | None], ...] = ()


def advice_numbers(
    probes: Sequence[Probe],
    tokens: float | None = None,
    *,
    prompt_cost: float = 0.0,
    steps: int = 1,
    group: str = "all",
    reference: str | None = None,
) -> AdviceNumbers:
    """Advice for one step of ``tokens`` sampled tokens, or for the mean of several.

    Args:
        probes: of one run, or one of each of several seeds, with the same estimators.
        tokens: N; by default those of the run's own step, or of 64 responses.
        prompt_cost: tokens that a prompt costs beside its responses; 0 where only sampled tokens count.
        steps: S; the estimator is chosen for the mean gradient of S such steps at nearly the same weights.
        group: parameter group.
        reference: the target, an objective or an estimator; by default J.

    Raises:
        ValueError: a budget out of range or too small for a response, a group or target that is not measured, too few
            prompts, moments that are not finite.
    """
    first = probes[0]
    name = default_reference(first.moments.names, reference)
    sums = sums_of(probes, group)
    length = float(np.mean([probe.length for probe in probes]))
    given = tokens is not None
    budget = Budget(tokens if tokens is not None else first.batch * length, length, prompt_cost, given, steps)
    target = sums.names.index(name)
    ranking = rank(sums, budget, target, first.current)
    fitted, unfitted, row = None, "", ranking[ranking.pick]
    if len(probes) == 1 and ranking.resolved:
        fitted, unfitted = _fitted(first.of_group(group), sums, budget, ranking, name)
    elif len(probes) > 1 and _family(sums) is not None:
        unfitted = "kernels are fitted to one run at a time"
    whole, e, rollouts = sums, sums.names.index(row.name), row.rollouts
    if fitted is not None and fitted.gain.low > 0:
        ranking = replace(ranking, pick=fitted.name, reason="fitted")
        whole, e, rollouts = _with_fitted(first, group, fitted, sums), len(sums.names), _step(sums, budget)[1]
    toward = target if ranking.resolved else None
    unknown = Interval(math.nan)
    return AdviceNumbers(
        places=tuple(probe.place for probe in probes),
        step=first.step,
        steps=first.steps,
        group=group,
        reference=name,
        budget=budget,
        batch=first.batch,
        prompts=sums.prompts,
        rollouts=sums.rollouts,
        units=sums.units,
        unit=sums.unit,
        current=first.current,
        estimator=ranking.pick,
        ranking=ranking,
        split=split_of(whole, budget, e, rollouts, toward),
        snr=snr_at(whole, budget, e, rollouts),
        limit=unknown if toward is None else bias_limit(whole, e, target),
        efficiency=fitted.efficiency if ranking.reason == "fitted" and fitted else row.efficiency,
        fitted=fitted,
        unfitted=unfitted,
        again=first.again,
        overtaking=None if toward is None else overtaking(whole, budget, (e, rollouts), ranking, target),
        target_units=math.nan if ranking.resolved else target_units(first.of_group(group).moments, group, name),
    )


def _step(sums: Sums, budget: Budget) -> tuple[float, int]:
    """(B, R) of the estimators by lag, B that of all steps of the budget; ValueError where the budget buys none."""
    rollouts = sums.best_split(lag_family(sums.names).numbers[-1], budget)
    if rollouts is None:
        raise ValueError("the budget buys no prompt with the responses that they take")
    return budget.steps * budget.prompts(rollouts) * rollouts, rollouts


def _fitted(probe: Probe, sums: Sums, budget: Budget, ranking: Ranking, reference: str) -> tuple[Fitted | None, str]:
    """The fitted kernel, or why there is none; neither where no estimators by lag were measured."""
    family = _family(sums)
    if family is None:
        return None, ""
    row = ranking[ranking.pick]
    group = next(iter(probe.moments.groups))
    try:
        fitted = fitted_beside(
            probe.moments,
            family,
            _step(sums, budget),
            row.name,
            (budget.steps * row.prompts * row.rollouts, row.rollouts),
            reference,
            group=group,
            unit=sampling_unit(probe.moments),
        )
    except ValueError as error:
        return None, str(error)
    return fitted, "" if fitted else "weights fitted to the lags promise nothing beyond the measured estimators"


def _family(sums: Sums) -> LagFamily | None:
    """The estimators by lag, three or more; two are no reason to speak of a fit."""
    try:
        family = lag_family(sums.names)
    except ValueError:
        return None
    return family if len(family.numbers) > 2 else None


def _with_fitted(probe: Probe, group: str, fitted: Fitted, sums: Sums) -> Sums:
    """The sums with the fitted estimator as one more."""
    moments = probe.of_group(group).moments
    weights = np.concatenate([np.eye(len(sums.names)), fitted.weights[None]])
    more = recombine(moments, torch.from_numpy(weights), [*moments.names, fitted.name])
    return sums_of([replace(probe, moments=more)], group)
