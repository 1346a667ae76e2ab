"""Methods paired by seed: after as many steps, or after as many seconds.

The seconds of a curve are those of its steps and of the measurements made on the way, both in units of a step of
LLMR, from ``cost.csv``. The clock of all that are compared is read at the last second at which each still has a
curve: a method that has ended is not taken to stand still.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from figures.acting.cells import CHOSEN, LAST, Results, over
from kvar.intervals import Interval

HOW = {"samples": "equal samples", "seconds": "equal wall time"}


@dataclass(frozen=True)
class Clock:
    """When a run reaches a step.

    Attributes:
        step: seconds of a step.
        pauses: (step, seconds) of each measurement, made after that many steps and before the next.
    """

    step: float
    pauses: tuple[tuple[float, float], ...] = ()

    def reached(self, step: float) -> float:
        """Seconds at which the student after ``step`` steps is there; measurements made of it come later."""
        return step * self.step + sum(seconds for at, seconds in self.pauses if at < step)

    def read(self, steps: Sequence[float], values: Sequence[float], when: float) -> float:
        """A curve's value at a second: lines between checkpoints, flat while it measures; NaN after its end.

        >>> Clock(2.0, ((0, 30.0),)).read([0, 50], [0.0, 10.0], 80.0)  # 25 steps of 2 s after 30 s
        5.0
        """
        if when > self.reached(steps[-1]) * (1 + 1e-9):
            return float("nan")
        seconds, numbers = [], []
        for step in sorted({*steps, *(at for at, _ in self.pauses if at < steps[-1])}):
            value = float(np.interp(step, steps, values))
            begun = self.reached(step)
            seconds += [begun, begun + sum(length for at, length in self.pauses if at == step)]
            numbers += [value, value]
        return float(np.interp(when, seconds, numbers))


def clock_of(results: Results, task: str, method: str, rate: float, seed: int) -> Clock | None:
    """A run's clock in steps of LLMR.

    None where cost.csv lacks the method or, of one that measures, its choices or their cost.
    """
    cost = results.cost
    if not len(cost):
        return None
    own = cost[(cost["task"] == task) & (cost["method"] == method)].set_index("what")["ratio"]
    if "step" not in own:
        return None
    choices = results.choices
    made = choices[
        (choices["task"] == task)
        & (choices["method"] == method)
        & (choices["rate"] == rate)
        & (choices["seed"] == seed)
    ]["step"]
    measures = any(method in methods for methods in CHOSEN.values())
    if measures and not (len(made) and "measurement" in own):
        return None
    return Clock(float(own["step"]), tuple((float(step), float(own["measurement"])) for step in sorted(made)))


@dataclass(frozen=True)
class Comparison:
    """A method less the best of a group, paired by seed.

    Attributes:
        method: the method.
        best: the one of the group with the largest mean over the seeds compared, which favours it.
        difference: seed -> method less best.
        when: the step, or the time in steps of LLMR, at which all are read.
    """

    method: str
    best: str
    difference: pd.Series
    when: float

    def interval(self, confidence: float = 0.95) -> Interval:
        """Mean difference with its t interval over seeds."""
        return over(self.difference, confidence)

    @property
    def signs(self) -> str:
        """How many seeds lie above 0."""
        return f"{int((self.difference > 0).sum())} of {len(self.difference)}"


def compare(
    results: Results, task: str, quantity: str, method: str, group: Sequence[str], how: str
) -> Comparison | None:
    """A method against the best of a group, each at its own rate for ``quantity``; None where one of them is missing.

    Args:
        results: of the study.
        task: the task.
        quantity: "J" or "greedy".
        method: compared with the group.
        group: methods, of which those count that share as many seeds with it as any of them, or one less.
        how: of :data:`HOW`; "samples" after :data:`LAST` steps.
    """
    curves = {m: results.curves(task, m, quantity, quantity) for m in (method, *group)}
    whole = {m: c.dropna() for m, c in curves.items() if LAST in c}
    whole = {m: c for m, c in whole.items() if len(c)}
    if method not in whole:
        return None
    shared = {m: len(set(whole[method].index) & set(c.index)) for m, c in whole.items() if m != method}
    most = max(shared.values(), default=0)
    whole = {m: c for m, c in whole.items() if m == method or shared[m] >= max(most - 1, 1)}
    if len(whole) < 2:
        return None
    seeds = sorted(set.intersection(*(set(c.index) for c in whole.values())))
    if not seeds:
        return None
    when: float = LAST
    if how == "samples":
        values = pd.DataFrame({m: c.loc[seeds, LAST] for m, c in whole.items()})
    else:
        clocks = {(m, s): clock_of(results, task, m, results.rates[task, m, quantity], s) for m in whole for s in seeds}
        if any(clock is None for clock in clocks.values()):
            return None
        when = min(clock.reached(whole[m].columns[-1]) for (m, _), clock in clocks.items() if clock is not None)
        values = pd.DataFrame(
            {
                m: {s: clocks[m, s].read(list(c.columns), list(c.loc[s]), when) for s in seeds}  # type: ignore[union-attr]
                for m, c in whole.items()
            }
        )
    best = str(values.drop(columns=method).mean().idxmax())
    return Comparison(method, best, values[method] - values[best], when)
