"""``kvar advise``: one page of plain words on what a step should be made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

from kvar.analysis.frames.recorded import probes_of
from kvar.records import Run
from kvar.report.words.advice import page
from kvar.results.advice import AdviceNumbers, advice_numbers
from kvar.results.probes import Probe, probe_of
from kvar.results.same_run import need_seeds_of_one_run

__all__ = ["Advice", "advise", "advise_probes"]


class Advice(AdviceNumbers):
    """The numbers of an advice; printed, it is a page of plain words."""

    def __str__(self) -> str:
        return page(self)

    __repr__ = __str__


def advise(
    runs: Run | Sequence[Run],
    tokens: float | None = None,
    *,
    step: int | str = "last",
    group: str = "all",
    reference: str | None = None,
    prompt_cost: float = 0.0,
    steps: int = 1,
) -> Advice:
    """Which estimator, how many prompts x responses, and whether a larger step pays, for a budget of tokens.

    Args:
        runs: with a probe; several are combined as seeds of one run, with intervals from the spread among them.
        tokens: sampled tokens of one optimiser step; by default those of the run's own steps, or of 64 responses.
        step: training step of the probe, or "last".
        group: parameter group.
        reference: the target: an objective ("J", "J_kl", "score") or an estimator ("data"); by default J.
        prompt_cost: tokens that a prompt costs beside its responses.
        steps: S; everything is told of the mean gradient of S such steps, at nearly the same weights: noise averages
            out, bias stays, (30).

    Raises:
        ValueError: no probe at that step, another group or target, a budget out of range, runs that do not belong
            together, too few prompts.
    """
    several = [runs] if isinstance(runs, Run) else list(runs)
    if len(several) > 1:
        need_seeds_of_one_run(several)
    probes = [probe_of(run, step) for run in several]
    if len({probe.step for probe in probes}) > 1:
        places = ", ".join(probe.place for probe in probes)
        raise ValueError(f"the last probes are of different steps ({places}); name one with step.")
    advice = advise_probes(probes, tokens, group=group, reference=reference, prompt_cost=prompt_cost, steps=steps)
    others = sorted({at for _, at in probes_of(several[0])} - {advice.step})
    told: list[tuple[int, str | None]] = []
    for at in others:
        try:
            each = [probe_of(run, at) for run in several]
            found = advice_numbers(
                each, advice.budget.tokens, prompt_cost=prompt_cost, steps=steps, group=group, reference=reference
            )
        except ValueError:  # too few prompts there, or other estimators: nothing to compare with
            continue
        told.append((at, found.estimator if found.ranking.resolved else None))
    return replace(advice, over_training=tuple(told))


def advise_probes(
    probes: Sequence[Probe],
    tokens: float | None = None,
    *,
    group: str = "all",
    reference: str | None = None,
    prompt_cost: float = 0.0,
    steps: int = 1,
) -> Advice:
    """The same of probes, without a look at other steps.

    Args:
        probes: one, or one a seed.
        tokens: as of :func:`advise`.
        group: parameter group.
        reference: the target.
        prompt_cost: as of :func:`advise`.
        steps: as of :func:`advise`.

    Raises:
        ValueError: as :func:`kvar.results.advice.advice_numbers`.
    """
    numbers = advice_numbers(probes, tokens, prompt_cost=prompt_cost, steps=steps, group=group, reference=reference)
    return Advice(**{f.name: getattr(numbers, f.name) for f in fields(numbers)})
