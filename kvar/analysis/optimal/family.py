"""Which measured estimators differ in the number of lags alone: what they span is every stepwise kernel."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kvar.analysis.frames.reference import parsed
from kvar.estimators import Estimator, PPOClip
from kvar.estimators.baselines import GroupNormalised
from kvar.intervals.jackknife import Array
from kvar.returns import Immediate, KStep, Stepwise, Window

__all__ = ["LagFamily", "lag_family"]


@dataclass(frozen=True)
class LagFamily:
    """G estimators that count 1, 2, ... groups of lags and agree in all else.

    Attributes:
        whole: the estimator of most lags.
        numbers: (G,) their numbers among the measured estimators.
        lengths: (G,) how many lags each counts, ascending; infinity for all.
    """

    whole: Estimator
    numbers: tuple[int, ...]
    lengths: tuple[float, ...]

    @property
    def members(self) -> Array:
        """(G, G) the estimators as weights of groups of lags: row g counts the first g + 1 groups."""
        return np.tri(len(self.numbers))

    def groups(self, count: int) -> Array:
        """(G, E) each group of lags as a sum of the E measured estimators."""
        return np.diff(np.eye(count)[list(self.numbers)], axis=0, prepend=0.0)

    def estimator(self, weights: Array) -> Estimator:
        """The estimator whose groups of lags have some weights, (G,), the first of them 1."""
        steps = [(int(first), float(weight)) for first, weight in zip(self.lengths, weights[1:], strict=False)]
        if self.lengths[-1] < math.inf:
            steps.append((int(self.lengths[-1]), 0.0))
        return replace(self.whole, kernel=Stepwise(steps))

    def rounded(self, weights: Array) -> Array:
        """Weights to three digits, which is what a kernel's name and its training have."""
        return np.array([float(f"{weight:.3g}") for weight in weights])

    def weights_of(self, estimator: Estimator) -> Array | None:
        """(G,) the weights of the groups of lags in an estimator of a stepwise kernel; None if it is no sum of them."""
        kernel = estimator.kernel
        if not isinstance(kernel, Stepwise) or replace(estimator, kernel=self.whole.kernel) != self.whole:
            return None
        firsts = [0, *self.lengths[:-1]]
        ends = kernel([self.lengths[-1]]).tolist() if self.lengths[-1] < math.inf else [0.0]
        between = {lag for lag, _ in kernel.steps} <= {*self.lengths}
        return kernel(firsts).numpy() if between and ends == [0.0] else None


def lag_family(names: Sequence[str], among: Iterable[str] | None = None) -> LagFamily:
    """The estimators of immediate, window(L) and K=1 kernels that agree in all else; of several such sets the largest.

    Exact immediate terms without later lags have no future to expect and no score to subtract a baseline from: they
    belong to the set whatever it says of these.

    Args:
        names: the estimators measured.
        among: those to use; all by default.

    Raises:
        ValueError: no two of them agree, two sets are equally large, or ``among`` names one that is not measured.
    """
    among = [among] if isinstance(among, str) else None if among is None else list(among)
    unknown = [name for name in among or () if name not in names]
    if unknown:
        raise ValueError(f"among names {unknown[0]!r}, which is none of the estimators measured, {', '.join(names)}.")
    sets: dict[Estimator, dict[float, int]] = {}
    immediate: list[tuple[Estimator, int]] = []
    for number, name in enumerate(names):
        e = parsed(name) if among is None or name in among else None
        length = None if e is None else _length(e)
        if e is None or length is None:
            continue
        if length == 1:
            immediate.append((e, number))
        else:
            sets.setdefault(replace(e, kernel=KStep(1)), {}).setdefault(length, number)
    for whole, members in sets.items():
        for e, number in immediate:
            if _same_immediate(e, whole):
                members.setdefault(1, number)
    sizes = sorted(map(len, sets.values()))
    if not sizes or sizes[-1] < 2:
        raise ValueError(
            "no estimators by lag are measured, that is, immediate, window(2), window(3), ... K=1 of one reward: "
            "measure kernels=kvar.estimators.lag_estimators()."
        )
    if sizes[-2:].count(sizes[-1]) > 1:
        equal = " and ".join(repr(whole.name) for whole, members in sets.items() if len(members) == sizes[-1])
        raise ValueError(f"several sets of estimators by lag are measured, of {equal}: name those to use by among=.")
    whole, members = max(sets.items(), key=lambda item: len(item[1]))
    lengths = sorted(members)
    return LagFamily(whole, tuple(members[length] for length in lengths), tuple(lengths))


def _length(e: Estimator) -> float | None:
    """How many lags an estimator counts that is linear in its kernel's weights; None for others."""
    if isinstance(e.subtracted, GroupNormalised) or isinstance(e.correction, PPOClip):
        return None
    if isinstance(e.kernel, KStep):
        return math.inf if e.kernel.k == 1 else None
    if isinstance(e.kernel, Immediate):
        return 1
    return e.kernel.length if isinstance(e.kernel, Window) else None


def _same_immediate(e: Estimator, whole: Estimator) -> bool:
    same = (e.reward, e.immediate, e.correction) == (whole.reward, whole.immediate, whole.correction)
    return same and (e.baseline == whole.baseline or (e.immediate == "exact" and e.baseline is None))
