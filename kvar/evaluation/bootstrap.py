"""Intervals of corpus scores: percentile bootstrap over examples, paired for differences; Wilson's for shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvar.intervals import Interval, wilson
from kvar.tasks import CorpusScore

__all__ = ["Interval", "difference", "intervals"]

CHUNK = 100  # resamples held at a time


def intervals(
    scores: Mapping[str, CorpusScore], *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, Interval]:
    """Every score with its interval over examples.

    Percentile bootstrap (Efron 1979; for corpus BLEU, Koehn 2004): examples are drawn with replacement, their
    statistics summed, the score taken. Shares of examples have Wilson's interval (1927) instead, because the bootstrap
    interval of 0 right answers in 100 has width 0.

    Args:
        scores: corpus scores of the same n examples.
        resamples: bootstrap resamples.
        seed: seed of the resampling.
        level: confidence level.

    Raises:
        ValueError: scores of different numbers of examples, no examples, or a setting out of range.

    Example:
        >>> from kvar.tasks import mean_score
        >>> gap = intervals({"gap": mean_score([1.0, 2.0, 3.0, 4.0] * 25)}, resamples=200)["gap"]
        >>> gap.value, gap.n, 2.2 < gap.low < 2.4, 2.6 < gap.high < 2.8
        (2.5, 100, True, True)
    """
    n = _check(scores, resamples, level)
    sums = _resampled({name: s.rows for name, s in scores.items() if not s.share}, n, resamples, seed)
    return {
        name: Interval(score.value, *wilson(score.value, n, level), n)
        if score.share
        else _percentile(score.value, _values(score.combine, sums[name]), n, level)
        for name, score in scores.items()
    }


def difference(
    first: Mapping[str, CorpusScore],
    second: Mapping[str, CorpusScore],
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Second minus first of the scores that both have, on the same examples in the same order.

    Both models' statistics of an example are drawn together: the bootstrap is paired.

    Args:
        first: one model's scores.
        second: the other's.
        resamples: bootstrap resamples.
        seed: seed of the resampling.
        level: confidence level.

    Raises:
        ValueError: different numbers of examples, or a setting out of range.
    """
    names = [name for name in first if name in second]
    n = _check({**{f"{k} ": first[k] for k in names}, **{k: second[k] for k in names}}, resamples, level)
    rows = {**{(0, k): first[k].rows for k in names}, **{(1, k): second[k].rows for k in names}}
    sums = _resampled(rows, n, resamples, seed)
    differences = {}
    for name in names:
        values = _values(second[name].combine, sums[1, name]) - _values(first[name].combine, sums[0, name])
        differences[name] = _percentile(second[name].value - first[name].value, values, n, level)
    return differences


def _resampled(
    rows: Mapping[Any, NDArray[np.float64]], n: int, resamples: int, seed: int
) -> dict[Any, NDArray[np.float64]]:
    """The summed statistics of every resample, all scores on the same draws: name -> (resamples, s)."""
    generator = np.random.default_rng(seed)
    sums: dict[Any, list[NDArray[np.float64]]] = {name: [] for name in rows}
    for start in range(0, resamples if rows else 0, CHUNK):
        picks = generator.integers(n, size=(min(CHUNK, resamples - start), n))
        counts = np.stack([np.bincount(pick, minlength=n) for pick in picks]).astype(np.float64)
        for name, part in rows.items():
            sums[name].append(counts @ part)
    return {name: np.concatenate(parts) for name, parts in sums.items()}


def _values(combine: Callable[[NDArray[np.float64]], float], sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([combine(row) for row in sums])


def _percentile(value: float, values: NDArray[np.float64], n: int, level: float) -> Interval:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return Interval(value, math.nan, math.nan, n)
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), n)


def _check(scores: Mapping[str, CorpusScore], resamples: int, level: float) -> int:
    counts = {len(score) for score in scores.values()}
    if len(counts) > 1:
        raise ValueError(f"scores have different numbers of examples ({sorted(counts)}); evaluate the same ones.")
    n = counts.pop() if counts else 0
    if n == 0:
        raise ValueError("no examples to resample: score at least one.")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1; got {resamples}.")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, such as 0.95; got {level}.")
    return n
