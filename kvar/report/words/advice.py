"""An advice as one page of plain words: each sentence says what a number and its interval support, and no more."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Iterable

from kvar.analysis.frames.reference import objective_of, target_words
from kvar.analysis.step.larger_step import gain_of, noiseless_share, times_for_share
from kvar.intervals import Interval, number
from kvar.report.words.amounts import listed, percent, rounded, scaled, several, span, whole
from kvar.report.words.choice import clause, told_by
from kvar.results.advice import AdviceNumbers, Overtaking, Ranking, SplitRow

__all__ = ["WIDTH", "page"]

WIDTH = 106
_ALIKE = 100


def page(a: AdviceNumbers) -> str:
    """The page, in lines of at most :data:`WIDTH` columns."""
    parts = [
        *_wrapped(_heading(a)),
        "",
        *_wrapped([_advised(a)]),
        "",
        *_section("Estimator", _estimator(a)),
        *_section("Prompts x responses", _split(a)),
        *(f"  {line}" for line in _table(a)),
        *_section("Size of the step", _size(a)),
        *_section("How sure", _sure(a)),
    ]
    return "\n".join(parts)


def _heading(a: AdviceNumbers) -> list[str]:
    low, high = a.rollouts
    responses = several(high, "response") if low == high else f"{low} to {high} responses"
    what = f"{a.prompts:,} prompts x {responses}, of {number(a.budget.length, 3)} tokens on average"
    places = "; ".join(a.places)
    return [
        f"{places}: {what}.",
        f"Efficiency is {_of_mean(a)}toward {target_words(a.reference)}; parameter group {a.group}; "
        f"brackets are 95 % intervals over {a.units:,} {a.unit}.",
    ]


def _advised(a: AdviceNumbers) -> str:
    whose = "the run" if a.current else "kvar"
    own = "" if a.budget.given else f" ({whose}'s own step of {whole(a.batch)} responses)"
    cost = f", and {a.budget.prompt_cost:g} for each prompt" if a.budget.prompt_cost else ""
    kept = "keep your estimator" if a.ranking.reason == "unresolved" else a.estimator
    step = _design(a.split.prompts, a.split.rollouts)
    mean = f", and for the mean of {a.budget.steps:,} steps" if a.budget.steps > 1 else ""
    return f"ADVICE for {whole(a.budget.tokens)} sampled tokens a step{own}{cost}{mean}: {kept}, {step}."


def _estimator(a: AdviceNumbers) -> list[str]:
    r = a.ranking
    if r.reason == "unresolved":
        need = told_by(a.target_units, a.prompts)
        bare = a.current and a.current not in [row.name for row in r.rows]
        why = ", since the run's own was not measured: name it in probe_kernels" if bare else ""
        return [
            f"Not resolved: {a.prompts:,} prompts do not tell {target_words(a.reference)}, from zero; {need}. Until "
            f"then there is no reason to change the estimator{_in_use(a)}. The numbers below are of {a.estimator}{why}."
        ]
    said = []
    if r.reason == "fitted" and a.fitted:
        said.append(
            f"{a.fitted.name} is fitted to the estimators by lag. Cross-fitted, its efficiency is "
            f"{a.fitted.efficiency.compact()}, {a.fitted.gain.compact()} (99 %, as those of fits are narrow) more than "
            "that of the measured estimator that would be taken otherwise."
        )
    said.append(_measured(a, r))
    if a.current in [row.name for row in r.rows] and a.current != r.pick and r.best and r.best != a.current:
        said.append(f"{r.best} has {_than(r, str(a.current))}, which the run trains with.")
    elif a.current and a.current not in [row.name for row in r.rows]:
        said.append(f"The run trains with {a.current}, which was not measured.")
    if a.fitted and r.reason != "fitted":
        sure = "not resolved" if a.fitted.gain.value > 0 else "nothing"
        said.append(f"A kernel fitted to the lags, {a.fitted.name}, promises {a.fitted.gain.compact()} more: {sure}.")
    elif a.unfitted:
        said.append(f"No kernel was fitted to the lags: {a.unfitted.rstrip('.')}.")
    if missing := [row.name for row in r.rows if not row.rollouts]:
        said.append(f"The budget buys no prompt with the responses that {listed(missing)} take.")
    return said


def _measured(a: AdviceNumbers, r: Ranking) -> str:
    many = len([row for row in r.rows if row.rollouts])
    if many == 1:
        return f"{r.best} was measured alone: its efficiency is {r[str(r.best)].efficiency.compact()}."
    if len(r.leaders) == 1 and r.best:
        using = " The run trains with it." if r.best == a.current else ""
        second = min(r.gains, key=lambda name: r.gains[name].value)
        return (
            f"{r.best} has the largest efficiency of {many}, {r[r.best].efficiency.compact()}, with probability "
            f"{r.leaders[r.best]:.2f}: {_than(r, second)}, the next.{using}"
        )
    said = clause(r.leaders, a.unit)
    said = f"{said[0].upper()}{said[1:]} as the best of {many}, in efficiency at this cost."
    if r.reason == "in use":
        said += f" The run trains with {r.pick}, one of them: keep it."
    elif r.reason == "simplest":
        said += f" {r.pick} is the simplest of those with half the largest efficiency or more: take it."
    if r.best and r.best != r.pick and r.pick in r.gains:
        said += f" {r.best} has the largest, {r[r.best].efficiency.compact()}, {_than(r, r.pick)}."
    elif r.best:
        said += f" The efficiency of {r.best} is {r[r.best].efficiency.compact()}."
    return f"{said} {_more(a, r)}"


def _than(r: Ranking, name: str) -> str:
    gain = r.gains[name]
    sure = "resolved" if gain.low > 0 else "not resolved"
    return f"{gain.compact()} more than {name} ({sure})"


def _more(a: AdviceNumbers, r: Ranking) -> str:
    if not math.isfinite(r.needed) or r.needed > _ALIKE * a.units:
        return f"They are so alike that {_ALIKE} times the {a.units:,} {a.unit} would not tell."
    return f"About {rounded(max(r.needed, a.units + 1))} {a.unit} would tell, were the differences seen the true ones."


def _split(a: AdviceNumbers) -> list[str]:
    s, name = a.split, a.estimator
    if s.share is None or s.ratio is None or s.break_even is None or s.optimum is None:
        said = ["One response to each prompt was measured: how much of the variance is within prompts is not known."]
        if a.budget.prompt_cost:
            return [*said, "Since prompts cost something, more responses to each might be better: measure with 4."]
        return [*said, "Where sampled tokens alone count, one response to each of more prompts is never worse."]
    said = [f"Of the variance of {name}, {percent(s.share)} is within prompts, the policy's own sampling noise."]
    if not s.ratio.low > 0:
        said.append("That prompts differ at all is not resolved.")
    if s.dependence == "unknown":
        return [
            *said,
            f"How its noise depends on the responses to a prompt is not known: {a.rollouts[0]}, as measured.",
        ]
    if s.dependence == "leave-one-out":
        r = a.rollouts[0]
        said.append(
            f"It subtracts the mean of the other responses to the prompt: it takes 2 or more, and is noisier the fewer "
            f"there are. {r} were measured; starred rows are what is possible, from none of that noise to all."
        )
        rest = [row for row in s.rows if not row.measured and row.variance.low < 1 < row.variance.high]
        if rest:
            said.append(
                f"Whether {listed([str(row.rollouts) for row in rest])} would be better is not told: measure with "
                f"{'it' if len(rest) == 1 else 'them'} to know."
            )
    elif not a.budget.prompt_cost:
        said.append(
            "Where sampled tokens alone count, one response to each of more prompts is the least noisy whatever that "
            f"share. Two responses pay where a prompt costs more than {span(s.break_even)} tokens beside them."
        )
    if a.budget.prompt_cost:
        value, low, high = (max(x, 1.0) for x in (s.optimum.value, s.optimum.low, s.optimum.high))
        best = Interval(value, low, high, s.optimum.n)
        said.append(f"At {a.budget.prompt_cost:g} tokens a prompt the least noisy R is {span(best)}.")
    return said


def _table(a: AdviceNumbers) -> list[str]:
    rows = [["responses", "prompts", "variance / advised", "efficiency"]]
    for row in a.split.rows:
        star = "" if row.measured else "*"
        advised = row.rollouts == a.split.rollouts
        rows.append(
            [
                f"{row.rollouts}{star}",
                whole(max(math.floor(row.prompts + 1e-9), 1)),
                "1" if advised and row.measured else _cell(row, row.variance),
                _cell(row, row.efficiency),
                *(["<- advised"] if advised else []),
            ]
        )
    widths = [max(len(line[i]) for line in rows) for i in range(4)]
    return ["  ".join([*(cell.rjust(w) for cell, w in zip(line, widths, strict=False)), *line[4:]]) for line in rows]


def _cell(row: SplitRow, x: Interval) -> str:
    if row.measured:
        return x.compact()
    return f"{number(x.low)} to {number(x.high)}" if x.known else "-"


def _size(a: AdviceNumbers) -> list[str]:
    name, tokens, many = a.estimator, a.budget.tokens, a.budget.steps > 1
    step = _mean(a) if many else "a step"
    if not a.snr.value > 0:
        said = [f"The mean gradient of {name} is not told from noise: {step} of this size may be all noise."]
    else:
        half, most = (scaled(times_for_share(a.snr, share), tokens) for share in (0.5, 0.8))
        said = [
            f"Noise leaves {step} {percent(noiseless_share(a.snr))} of the efficiency that {name} has without any. "
            f"Half of it takes {span(half)} tokens{' a step' * many}, 80 % {span(most)}. "
            f"{f'The mean of {a.budget.steps:,} steps' if many else 'A step'} of twice the tokens is worth "
            f"{gain_of(a.snr).compact()} of this one: {_worth(a.snr)}."
        ]
        if not a.snr.low > 0:
            said.append("That there is any signal is not resolved.")
    ours, target = objective_of(name), objective_of(a.reference)
    if ours is not None and ours == target:
        return [*said, f"It has no bias toward {ours}: noise is all that a larger step has to mend."]
    if math.isnan(a.limit.value):
        return [*said, "How much bias it has is not known, the target not being resolved."]
    said.append(
        f"Without noise the efficiency would be {a.limit.compact()}: what lacks to 1 is bias, which no step mends."
    )
    return [*said, *([_overtaking(a.overtaking, a.split.prompts * a.split.rollouts)] if a.overtaking else [])]


def _overtaking(x: Overtaking, responses: float) -> str:
    """When bias outweighs noise, for steps of so many responses."""
    total, name = scaled(x.steps, responses), x.name

    def steps(number: float) -> str:
        return f"{rounded(number)} step{'' if rounded(number) == '1' else 's'} of this size"

    if math.isinf(x.steps.value):
        return (
            f"Bias stays where noise averages out, yet that {name}, the least biased, ever points better is not "
            f"resolved; it takes a sum of more than {rounded(total.low)} responses ({steps(x.steps.low)}; 95 %)."
        )
    if x.steps.value == 0:
        sure = "" if x.steps.high == 0 else f" (95 %: beyond {rounded(total.high)} responses at the latest)"
        return f"{name}, the least biased, points better in a step of any size{sure}."
    ends = (
        f"at least {rounded(total.low)}" if math.isinf(total.high)
        else f"{rounded(total.low)} to {rounded(total.high)}" if total.low > 0
        else f"at most {rounded(total.high)}"
    )  # fmt: skip
    return (
        f"Bias stays where noise averages out: summed over more than about {rounded(total.value)} responses "
        f"({steps(x.steps.value)}; 95 %: {ends}), {name} points better."
    )


def _mean(a: AdviceNumbers) -> str:
    return f"the mean of {a.budget.steps:,} steps"


def _of_mean(a: AdviceNumbers) -> str:
    return f"that of {_mean(a)}, " if a.budget.steps > 1 else ""


def _worth(snr: Interval) -> str:
    gain = gain_of(snr)
    if gain.high < 1.25:
        return "a larger step is mostly wasted"
    if gain.low > 1.75:
        return "nearly worth its price"
    return "less than its price" if gain.high < 1.75 else "whether that is worth its price is not resolved"


def _sure(a: AdviceNumbers) -> list[str]:
    when = "outside a training" if a.steps is None and not a.step else f"at step {a.step:,}"
    if a.steps is not None:
        when = (
            f"before the first of {a.steps:,} training steps" if not a.step
            else f"at the end of {a.steps:,} training steps" if a.step >= a.steps
            else f"at step {a.step:,} of {a.steps:,}"
        )  # fmt: skip
    said = [f"Measured {when}; noise and direction change as a student learns, so measure again after a while."]
    if a.over_training:
        said.append(f"At other probes of this run, for the same budget, the advice is {_phases(a.over_training)}.")
    more = max(4 * a.prompts, int(a.target_units) if math.isfinite(a.target_units) else 0)
    if len(a.ranking.leaders) > 1 and a.unit == "prompts" and a.prompts < a.ranking.needed < _ALIKE * a.prompts:
        more = math.ceil(a.ranking.needed)
    if a.unit == "seeds" and "probe_prompts" in a.again:
        said.append(
            "All seeds were probed on the same prompts, so intervals over seeds do not count what others change."
        )
    count = rounded(more)
    again = a.again.replace("{count}", count.replace(",", ""))
    return [*said, f"{count} prompts make it surer: {again}."]


def _phases(told: Iterable[tuple[int, str | None]]) -> str:
    parts = []
    for name, steps in itertools.groupby(told, key=lambda pair: pair[1]):
        at = [f"{step:,}" for step, _ in steps]
        where = f"step {at[0]}" if len(at) == 1 else f"steps {at[0]} {'and' if len(at) == 2 else 'to'} {at[-1]}"
        parts.append(f"{name or 'not resolved'} at {where}")
    return listed(parts)


def _in_use(a: AdviceNumbers) -> str:
    return f", {a.current}" if a.current else ""


def _design(prompts: float, rollouts: int) -> str:
    return f"{several(max(math.floor(prompts + 1e-9), 1), 'prompt')} x {several(rollouts, 'response')}"


def _section(title: str, sentences: list[str]) -> list[str]:
    return textwrap.wrap(f"{title}. {' '.join(sentences)}", WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def _wrapped(texts: list[str]) -> list[str]:
    return [line for text in texts for line in textwrap.wrap(text, WIDTH, break_on_hyphens=False)]
