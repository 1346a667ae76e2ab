"""An advice as one page of plain words: each sentence says what a number and its interval support, and no more."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Iterable

from kvar.analysis.frames.reference import objective_of, target_words
from kvar.analysis.step.larger_step import gain_of, noiseless_share, times_for_share
from kvar.intervals import Interval, number
from kvar.report.words.choice import clause
from kvar.results.advice import AdviceNumbers, Ranking, SplitRow

__all__ = ["WIDTH", "page"]

WIDTH = 106
_ALIKE = 100
_WIDE = 100.0
"""An interval whose ends differ by more than this factor is told by its nearer end alone."""


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
    responses = _several(high, "response") if low == high else f"{low} to {high} responses"
    what = f"{a.prompts:,} prompts x {responses}, of {number(a.budget.length, 3)} tokens on average"
    places = "; ".join(a.places)
    return [
        f"{places}: {what}.",
        f"Efficiency is toward {target_words(a.reference)}; parameter group {a.group}; brackets are 95 % intervals "
        f"over {a.units:,} {a.unit}.",
    ]


def _advised(a: AdviceNumbers) -> str:
    whose = "the run" if a.current else "kvar"
    own = "" if a.budget.given else f" ({whose}'s own step of {_whole(a.batch)} responses)"
    cost = f", and {a.budget.prompt_cost:g} for each prompt" if a.budget.prompt_cost else ""
    kept = "keep your estimator" if a.ranking.reason == "unresolved" else a.estimator
    step = _design(a.split.prompts, a.split.rollouts)
    return f"ADVICE for {_whole(a.budget.tokens)} sampled tokens a step{own}{cost}: {kept}, {step}."


def _estimator(a: AdviceNumbers) -> list[str]:
    r = a.ranking
    if r.reason == "unresolved":
        need = (
            f"about {_rounded(a.target_units)} prompts would, in four cases of five, were these numbers the true ones"
            if math.isfinite(a.target_units)
            else "these prompts do not tell how many would"
        )
        return [
            f"Not resolved: {a.prompts:,} prompts do not tell {target_words(a.reference)}, from zero; {need}. Until "
            f"then there is no reason to change the estimator{_in_use(a)}. The numbers below are of {a.estimator}."
        ]
    said = []
    if r.reason == "fitted" and a.fitted:
        said.append(
            f"{a.fitted.name} is fitted to the estimators by lag. Cross-fitted, its efficiency is "
            f"{_in(a.fitted.efficiency)}, {_in(a.fitted.gain)} (99 %, as intervals of fits are narrow) more than "
            "that of the measured estimator that would be taken otherwise."
        )
    said.append(_measured(a, r))
    if a.current in [row.name for row in r.rows] and a.current != r.pick and r.best and r.best != a.current:
        said.append(f"{r.best} has {_than(r, str(a.current))}, which the run trains with.")
    elif a.current and a.current not in [row.name for row in r.rows]:
        said.append(f"The run trains with {a.current}, which was not measured.")
    if a.fitted and r.reason != "fitted":
        sure = "not resolved" if a.fitted.gain.value > 0 else "nothing"
        said.append(f"A kernel fitted to the lags, {a.fitted.name}, promises {_in(a.fitted.gain)} more: {sure}.")
    elif a.unfitted:
        said.append(f"No kernel was fitted to the lags: {a.unfitted.rstrip('.')}.")
    if missing := [row.name for row in r.rows if not row.rollouts]:
        said.append(f"The budget buys no prompt with the responses that {_list(missing)} take.")
    return said


def _measured(a: AdviceNumbers, r: Ranking) -> str:
    many = len([row for row in r.rows if row.rollouts])
    if many == 1:
        return f"{r.best} was measured alone: its efficiency is {_in(r[str(r.best)].efficiency)}."
    if len(r.leaders) == 1 and r.best:
        using = " The run trains with it." if r.best == a.current else ""
        second = min(r.gains, key=lambda name: r.gains[name].value)
        return (
            f"{r.best} has the largest efficiency of {many}, {_in(r[r.best].efficiency)}, with probability "
            f"{r.leaders[r.best]:.2f}: {_than(r, second)}, the next.{using}"
        )
    said = clause(r.leaders, a.unit)
    said = f"{said[0].upper()}{said[1:]} as the best of {many}, in efficiency at this cost."
    if r.reason == "in use":
        said += f" The run trains with {r.pick}, one of them: keep it."
    elif r.reason == "simplest":
        said += f" {r.pick} is the simplest of them: take it."
    if r.best and r.best != r.pick and r.pick in r.gains:
        said += f" {r.best} has the largest, {_in(r[r.best].efficiency)}, {_than(r, r.pick)}."
    elif r.best:
        said += f" The efficiency of {r.best} is {_in(r[r.best].efficiency)}."
    return f"{said} {_more(a, r)}"


def _than(r: Ranking, name: str) -> str:
    gain = r.gains[name]
    sure = "resolved" if gain.low > 0 else "not resolved"
    return f"{_in(gain)} more than {name} ({sure})"


def _more(a: AdviceNumbers, r: Ranking) -> str:
    if not math.isfinite(r.needed) or r.needed > _ALIKE * a.units:
        return f"They are so alike that {_ALIKE} times the {a.units:,} {a.unit} would not tell."
    return f"About {_rounded(max(r.needed, a.units + 1))} {a.unit} would tell, were the differences seen the true ones."


def _split(a: AdviceNumbers) -> list[str]:
    s, name = a.split, a.estimator
    if s.share is None or s.ratio is None or s.break_even is None or s.optimum is None:
        said = ["One response to each prompt was measured: how much of the variance is within prompts is not known."]
        if a.budget.prompt_cost:
            return [*said, "Since prompts cost something, more responses to each might be better: measure with 4."]
        return [*said, "Where sampled tokens alone count, one response to each of more prompts is never worse."]
    said = [f"Of the variance of {name}, {_percent(s.share)} is within prompts, the policy's own sampling noise."]
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
                f"Whether {_list([str(row.rollouts) for row in rest])} would be better is not told: measure with "
                f"{'it' if len(rest) == 1 else 'them'} to know."
            )
    elif not a.budget.prompt_cost:
        said.append(
            "Where sampled tokens alone count, one response to each of more prompts is the least noisy whatever that "
            f"share. Two responses pay where a prompt costs more than {_span(s.break_even)} tokens beside them."
        )
    if a.budget.prompt_cost:
        said.append(f"At {a.budget.prompt_cost:g} tokens a prompt the least noisy R is {_span(s.optimum)}.")
    return said


def _table(a: AdviceNumbers) -> list[str]:
    rows = [["responses", "prompts", "variance of the step", "efficiency"]]
    for row in a.split.rows:
        star = "" if row.measured else "*"
        advised = row.rollouts == a.split.rollouts
        rows.append(
            [
                f"{row.rollouts}{star}",
                _whole(max(math.floor(row.prompts + 1e-9), 1)),
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
    name, tokens = a.estimator, a.budget.tokens
    if not a.snr.value > 0:
        said = [f"The mean gradient of {name} is not told from noise: a step of this size may be all noise."]
    else:
        half, most = (_scaled(times_for_share(a.snr, share), tokens) for share in (0.5, 0.8))
        said = [
            f"Noise leaves a step {_percent(noiseless_share(a.snr))} of the efficiency that {name} has without any. "
            f"Half of it takes {_span(half)} tokens, 80 % {_span(most)}. A step of twice the tokens is worth "
            f"{_in(gain_of(a.snr))} of this one: {_worth(a.snr)}."
        ]
        if not a.snr.low > 0:
            said.append("That there is any signal is not resolved.")
    ours, target = objective_of(name), objective_of(a.reference)
    if ours is not None and ours == target:
        return [*said, f"It has no bias toward {ours}: noise is all that a larger step has to mend."]
    if math.isnan(a.limit.value):
        return [*said, "How much bias it has is not known, the target not being resolved."]
    return [
        *said,
        f"Without noise the efficiency would be {_in(a.limit)}: what lacks to 1 is bias, which no step mends.",
    ]


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
        said.append(f"At other probes of this run the same budget takes {_phases(a.over_training)}.")
    more = max(4 * a.prompts, int(a.target_units) if math.isfinite(a.target_units) else 0)
    if len(a.ranking.leaders) > 1 and a.unit == "prompts" and a.prompts < a.ranking.needed < _ALIKE * a.prompts:
        more = math.ceil(a.ranking.needed)
    if a.unit == "seeds" and a.again:
        said.append(
            "All seeds were probed on the same prompts, so intervals over seeds do not count what others change."
        )
    return [*said, f"{_rounded(more)} other prompts make it surer: {_again(a, more)}."]


def _again(a: AdviceNumbers, prompts: int) -> str:
    count = _rounded(prompts).replace(",", "")
    if a.again is None:
        return f"kvar.measure(..., prompts) with {count} of them, then .advise()"
    return f"kvar probe {a.again} --probe_prompts {count} --probe_seed 1 --output DIR, then kvar advise DIR"


def _phases(told: Iterable[tuple[int, str | None]]) -> str:
    parts = []
    for name, steps in itertools.groupby(told, key=lambda pair: pair[1]):
        at = [f"{step:,}" for step, _ in steps]
        where = f"step {at[0]}" if len(at) == 1 else f"steps {at[0]} to {at[-1]}"
        parts.append(f"{name or 'nothing that is resolved'} at {where}")
    return _list(parts)


def _in_use(a: AdviceNumbers) -> str:
    return f", {a.current}" if a.current else ""


def _design(prompts: float, rollouts: int) -> str:
    return f"{_several(max(math.floor(prompts + 1e-9), 1), 'prompt')} x {_several(rollouts, 'response')}"


def _several(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _in(x: Interval) -> str:
    return x.compact()


def _percent(x: Interval) -> str:
    whole = [f"{100 * v:.0f}" for v in (x.value, x.low, x.high)]
    return f"{whole[0]} % [{whole[1]}, {whole[2]}]" if x.known else f"{whole[0]} %"


def _span(x: Interval) -> str:
    """Value and ends of a positive quantity; one end alone where the other is far away or infinite."""
    if math.isnan(x.value):
        return "an unknown number of"
    if not x.known:
        return f"about {_rounded(x.value)}"
    if not math.isfinite(x.high) or x.high > _WIDE * x.low > 0:
        return f"at least {_rounded(x.low)}" if x.low > 0 else "an unknown number of"
    return f"{_rounded(x.value)} [{_rounded(x.low)}, {_rounded(x.high)}]"


def _scaled(x: Interval, by: float) -> Interval:
    return Interval(x.value * by, x.low * by, x.high * by, x.n)


def _rounded(x: float) -> str:
    """Two significant digits, three from 1,000 on, with commas.

    >>> [_rounded(x) for x in (1234567.0, 1236.0, 64.4, 2.345, 0.0)]
    ['1,230,000', '1,240', '64', '2.3', '0']
    """
    if x >= 1000:
        return f"{float(f'{x:.3g}'):,.0f}"
    return f"{float(f'{x:.2g}'):g}" if x < 100 else f"{x:.0f}"


def _whole(x: float) -> str:
    return f"{x:,.0f}"


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _section(title: str, sentences: list[str]) -> list[str]:
    return textwrap.wrap(f"{title}. {' '.join(sentences)}", WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def _wrapped(texts: list[str]) -> list[str]:
    return [line for text in texts for line in textwrap.wrap(text, WIDTH, break_on_hyphens=False)]
