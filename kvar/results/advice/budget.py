"""A budget of tokens, the sums of every probe that is to be advised on, and each estimator's best split of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kvar.analysis.frames.measured import LEAST_PROMPTS, sampling_unit
from kvar.analysis.replicates import Replicates, need_pairs, replicates
from kvar.analysis.signal import signal_of
from kvar.analysis.step.split import (
    Dependence,
    between_over_within,
    dependence_of,
    noise_at_budget,
    rollouts_from_ratio,
    steepest_within,
)
from kvar.analysis.trace_covariance import trace_of
from kvar.intervals import Interval, jackknife
from kvar.intervals.jackknife import Array, Scale
from kvar.results.probes import Probe, responses_of
from kvar.results.same_run import need_different_probes

__all__ = ["Budget", "Sums", "joined", "sums_of"]

_MOST = 1024


@dataclass(frozen=True)
class Budget:
    """What a step may cost, in tokens.

    Attributes:
        tokens: N of one optimiser step.
        length: L of a response, on average.
        prompt_cost: c_p of a prompt beside its responses.
        given: whether N was given; else it is that of the run's own steps.
        steps: S, of whose mean efficiency, noise and SNR are.

    Raises:
        ValueError: a number out of range, or less than one response.
    """

    tokens: float
    length: float
    prompt_cost: float = 0.0
    given: bool = True
    steps: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(
                f"steps must be a whole number of at least 1, the steps whose mean is to point best; got "
                f"{self.steps!r}."
            )
        if not (isinstance(self.prompt_cost, (int, float)) and 0 <= self.prompt_cost < math.inf):
            raise ValueError(f"prompt_cost must be 0 or a positive number of tokens; got {self.prompt_cost!r}.")
        if not (isinstance(self.tokens, (int, float)) and 0 < self.tokens < math.inf):
            raise ValueError(
                f"tokens must be a positive number, those that one optimiser step may sample; got {self.tokens!r}."
            )
        if not self.length > 0:
            raise ValueError("the measured responses have no tokens: nothing can be advised on; measure again.")
        if self.prompts(1) < 1:
            costs = f", and its prompt costs {self.prompt_cost:g} besides" if self.prompt_cost else ""
            raise ValueError(
                f"tokens={self.tokens:g} buys not one response: those measured have {self.length:.1f} tokens on "
                f"average{costs}. Give at least {math.ceil(self.prompt_cost + self.length)}."
            )

    def prompts(self, rollouts: float) -> float:
        """M, how many prompts N buys with R responses to each; not rounded."""
        return self.tokens / (self.prompt_cost + rollouts * self.length)

    @property
    def most_rollouts(self) -> int:
        """The most responses to one prompt that N buys."""
        return int((self.tokens - self.prompt_cost) / self.length + 1e-9)


@dataclass(frozen=True)
class Sums:
    """The sums of one probe, or of one probe of each of several seeds.

    Attributes:
        each: of every probe.
        names: of the estimators.
        rollouts: smallest and largest number of responses measured for a prompt.
        prompts: measured, in each probe.
        unit: what intervals rest on: "prompts", "responses" or "seeds".
    """

    each: tuple[Replicates, ...]
    names: tuple[str, ...]
    rollouts: tuple[int, int]
    prompts: int
    unit: str

    @property
    def units(self) -> int:
        """How many of them."""
        return self.each[0].units if len(self.each) == 1 else len(self.each)

    @property
    def split(self) -> bool:
        """Whether the variance within prompts is told from that between them."""
        return all(data.inner is not None for data in self.each)

    @property
    def measured(self) -> int:
        """R of the measurement; of unequal numbers the smallest."""
        return self.rollouts[0]

    def interval(self, statistic: Callable[[Replicates], Array], scale: Scale = "plain") -> list[Interval]:
        """A statistic of each estimator, with its interval."""
        est = jackknife(joined([statistic(data) for data in self.each]), self.units, scale=scale)
        return [
            Interval(float(v), float(a), float(b), est.n) for v, a, b in zip(est.value, est.low, est.high, strict=True)
        ]

    def dependence(self, e: int) -> Dependence:
        """Whether estimator e's variance within prompts depends on R."""
        return dependence_of(self.names[e])

    def within_factor(self, e: int, rollouts: int) -> float:
        """By how much e's measured variance within prompts may grow at R, at most."""
        if self.dependence(e) == "none" or rollouts >= self.measured:
            return 1.0
        return steepest_within(self.measured, rollouts)

    def allowed(self, e: int, budget: Budget) -> list[int]:
        """The R that something is known of for an estimator, ascending, and that the budget buys."""
        kind, most = self.dependence(e), min(budget.most_rollouts, _MOST)
        if kind == "unknown" or (kind == "none" and not self.split):
            only = self.measured if kind == "unknown" else 1
            return [only] if only <= most else []
        return list(range(2 if kind == "leave-one-out" else 1, most + 1))

    def best_split(self, e: int, budget: Budget) -> int | None:
        """The R of an estimator whose step is least noisy; None where the budget buys no prompt with enough responses.

        Where between / within is not told from nothing it is taken at the upper end of its interval: the fewest
        responses that agree with the data. Leave-one-out keeps the R that was measured, unless another is better
        at both ends of that interval and at the most that its noise can be there.
        """
        allowed = self.allowed(e, budget)
        if len(allowed) < 2:
            return allowed[0] if allowed else None
        ratio = self.interval(between_over_within)[e]
        ends = [max(x, 0.0) for x in (ratio.low, ratio.high)]
        if not np.isfinite(ends).all():
            return min(allowed, key=lambda r: abs(r - self.measured))

        def noise(r: int, b: float) -> float:
            factor = np.asarray(self.within_factor(e, r))
            return float(noise_at_budget(np.asarray(b), factor, r, budget.prompt_cost, budget.length))

        if self.dependence(e) == "leave-one-out":
            kept = min(allowed, key=lambda r: abs(r - self.measured))
            worst = {r: max(noise(r, b) / noise(kept, b) for b in ends) for r in allowed}
            return min((r for r in allowed if worst[r] < 1), key=worst.__getitem__, default=kept)
        b = ratio.value if ratio.low > 0 else ends[1]
        least = min(noise(r, b) for r in allowed)
        return next(r for r in allowed if noise(r, b) <= least * (1 + 1e-9))

    def variance(self, e: int, budget: Budget, rollouts: int, factor: float) -> list[Array]:
        """(1+U,) of each probe: tr Cov of the mean of the budget's steps, with ``factor`` times "within"."""
        out = []
        for data in self.each:
            trace = trace_of(data)[:, e]
            whole = trace
            if rollouts > 1 or factor != 1:
                within = np.diagonal(data.within(), axis1=1, axis2=2)[:, e]
                whole = trace - within + factor * within / rollouts
            out.append(np.asarray(whole / (budget.prompts(rollouts) * budget.steps)))
        return out

    def signal(self) -> list[Array]:
        """(1+U, E) |E g|^2 of each probe."""
        return [signal_of(data) for data in self.each]

    def optimum(self, e: int, budget: Budget) -> Interval:
        """R* of (28) as a real number."""
        ratio = self.interval(between_over_within)[e]
        cost = budget.prompt_cost / budget.length
        value, low, high = (
            float(rollouts_from_ratio(np.asarray(x), cost)) for x in (ratio.value, ratio.high, ratio.low)
        )
        return Interval(value, low, high, ratio.n)


def sums_of(probes: Sequence[Probe], group: str) -> Sums:
    """The sums of probes of one run, or of its seeds.

    Raises:
        ValueError: no such group, moments that are not finite, norms only, too few prompts, or probes that differ in
            estimators or responses to a prompt.
    """
    chosen = [probe.of_group(group) for probe in probes]
    counts = {(int(c.min()), int(c.max())) for probe in chosen for c in (responses_of(probe.moments),)}
    names = {probe.moments.names for probe in chosen}
    if len(names) > 1:
        raise ValueError(f"these runs differ in the estimators measured: {'; '.join(', '.join(n) for n in names)}.")
    if len(counts) > 1:
        shown = ", ".join(str(high) for _, high in sorted(counts))
        raise ValueError(f"these probes have different numbers of responses to a prompt ({shown}); take alike ones.")
    need_different_probes({probe.place: probe.moments for probe in chosen})
    for probe in chosen:
        need_pairs(probe.moments, group, "advise")
        prompts = len(probe.moments.prompts)
        if prompts < LEAST_PROMPTS:
            raise ValueError(
                f"{probe.place} has {prompts} prompt{'s' * (prompts > 1)}: advice needs intervals, which leave one "
                f"prompt out, so {LEAST_PROMPTS} prompts at the least. Take a few hundred."
            )
    each = tuple(replicates(probe.moments, group, sampling_unit(probe.moments)) for probe in chosen)
    first = chosen[0].moments
    unit = "seeds" if len(each) > 1 else "prompts" if each[0].units == len(first.prompts) else "responses"
    return Sums(each, next(iter(names)), next(iter(counts)), len(first.prompts), unit)


def joined(each: Sequence[Array]) -> Array:
    """(1 + n, ...) replicates: of one probe its own; of several seeds their mean, and that without each seed."""
    if len(each) == 1:
        return each[0]
    whole = np.stack([x[0] for x in each])
    return np.concatenate([whole.mean(axis=0)[None], (whole.sum(axis=0) - whole) / (len(whole) - 1)])
