"""What an adaptive training chooses among, and the estimators that have to be measured for the choice."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from kvar.estimators.data import DATA
from kvar.estimators.estimator import Estimator
from kvar.estimators.lag_estimators import lag_estimators
from kvar.estimators.parse import parse_estimators, split_names
from kvar.estimators.rewards import Gap

__all__ = ["AUTO", "FITTED", "TARGETS", "Adaptive", "AdaptiveSettings", "adaptive", "with_value"]

AUTO = "auto"
"""The setting ``estimator`` of an adaptive training."""
FITTED = "fitted"
"""The candidate that is fitted to the measurement, :func:`kvar.analysis.optimal_kernel`."""
TARGETS = {
    "J": "gap K=1 exact expected",
    "J_kl": "kl K=1 exact expected",
    "score": "score",
}
"""Objective -> the estimator that is measured for its gradient, less a leave-one-out baseline where prompts have two
responses."""
LENGTHS = (1, 2, 3, 5, 9, 17)
"""Of :func:`lag_estimators`, as far as responses are that long."""


class AdaptiveSettings(Protocol):
    """The settings that say what is chosen among; ``DistillationConfig`` documents each."""

    auto_start: str
    auto_candidates: str
    auto_target: str
    value: Literal["max", "soft"]
    rollouts_per_prompt: int
    max_new_tokens: int


@dataclass(frozen=True)
class Adaptive:
    """The estimators of an adaptive training.

    Attributes:
        start: in use until the first choice.
        named: the candidates that have a name.
        lags: the estimators by lag of the candidate :data:`FITTED`; empty where it is none.
        target: J, J_kl, score, data, or the name of ``toward``.
        toward: the estimator that is a target by its name.
        value: V of the gaps.
    """

    start: Estimator
    named: tuple[Estimator, ...]
    lags: tuple[Estimator, ...]
    target: str
    toward: Estimator | None = None
    value: Literal["max", "soft"] = "max"

    @property
    def candidates(self) -> list[str]:
        """Names, and "fitted"."""
        return [*(e.name for e in self.named), *([FITTED] if self.lags else [])]

    @property
    def trained(self) -> dict[str, Estimator]:
        """What may be trained, by the setting that names it; all lags stand for a kernel that is fitted to them."""
        every = {f"auto_start {self.start.name!r}": self.start}
        every |= {f"auto_candidates: {e.name!r}": e for e in self.named}
        return every | ({f"auto_candidates: {FITTED!r}": self.lags[-1]} if self.lags else {})

    def measured(self, rollouts_per_prompt: int) -> list[Estimator]:
        """The estimators that a choice needs, each once, of a measurement of R responses to a prompt."""
        toward = [self.toward] if self.toward is not None else []
        if self.target in TARGETS:
            baseline = "leave-one-out" if rollouts_per_prompt > 1 else None
            toward = [with_value(e, self.value) for e in parse_estimators(TARGETS[self.target], baseline)]
        return list({e.name: e for e in (self.start, *self.named, *self.lags, *toward)}.values())


def adaptive(settings: AdaptiveSettings) -> Adaptive:
    """The estimators of an adaptive training, from its settings.

    A kernel is fitted to estimators with a leave-one-out baseline, or with position-mean where each prompt has one
    response, and of as many lags as responses may have.

    Raises:
        ValueError: a name that cannot be read, no candidate, or one twice; it names the setting.

    Example:
        >>> from types import SimpleNamespace
        >>> given = SimpleNamespace(auto_start="gap immediate exact", auto_candidates="K=4, fitted", auto_target="J",
        ...                         value="max", rollouts_per_prompt=1, max_new_tokens=3)
        >>> chosen = adaptive(given)
        >>> chosen.candidates, [e.name for e in chosen.lags][1:]
        (['K=4', 'fitted'], ['gap window(2) exact expected - position-mean', 'gap K=1 exact expected - position-mean'])
        >>> chosen.measured(2)[-1].name
        'gap K=1 exact expected - leave-one-out'
    """

    def read(field: str, names: str | Iterable[str]) -> tuple[Estimator, ...]:
        try:
            return tuple(with_value(e, settings.value) for e in parse_estimators(list(names)))
        except ValueError as error:
            raise ValueError(f"{field} {getattr(settings, field)!r}: {error}") from None

    given = split_names(settings.auto_candidates)
    if not given:
        raise ValueError(f"auto_candidates are empty: name estimators, or {FITTED!r}.")
    names = [name for name in given if name != FITTED]
    if len(given) - len(names) > 1:
        raise ValueError(f"auto_candidates name {FITTED!r} twice; keep one.")
    start = read("auto_start", split_names(settings.auto_start))
    if len(start) > 1:
        raise ValueError(f"auto_start {settings.auto_start!r} names {len(start)} estimators; training takes one.")
    named = read("auto_candidates", names) if names else ()
    lags: tuple[Estimator, ...] = ()
    if FITTED in given:
        if settings.max_new_tokens < 2:
            raise ValueError(f"auto_candidates: {FITTED!r} needs later lags; max_new_tokens is 1. Leave it out.")
        baseline = "leave-one-out" if settings.rollouts_per_prompt > 1 else "position-mean"
        lengths = [length for length in LENGTHS if length < settings.max_new_tokens]
        lags = tuple(with_value(e, settings.value) for e in lag_estimators(f"{TARGETS['J']} - {baseline}", lengths))
    target, toward = settings.auto_target.strip(), None
    if target not in (*TARGETS, DATA):
        one = read("auto_target", split_names(target))
        if len(one) > 1:
            raise ValueError(f"auto_target {settings.auto_target!r} names {len(one)} estimators; give one.")
        target, toward = one[0].name, one[0]
    return Adaptive(start[0], named, lags, target, toward, settings.value)


def with_value(estimator: Estimator, value: Literal["max", "soft"]) -> Estimator:
    """The estimator whose gap, if it is of the gap, has a hard or soft V."""
    return replace(estimator, reward=Gap(value)) if isinstance(estimator.reward, Gap) else estimator
