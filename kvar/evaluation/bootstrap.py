"""Intervals of corpus scores: percentile bootstrap over examples, paired for differences; Wilson's for shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from kvar.intervals import Interval, wilson
from kvar.tasks import CorpusScore

__all__ = ["Interval", "difference", "intervals"]

CHUNK = 100  # resamples held at a time


def intervals(
    scores: Mapping[str, CorpusScore], *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, Interval]:
    """Every score with its interval over examples drawn anew.

    Percentile bootstrap (Efron 1979; for corpus BLEU, Koehn 2004): examples are drawn with replacement, their
    statistics summed, the score taken. Shares of examples take Wilson's interval (1927) instead: a bootstrap of 0 right
    answers in 100 would be sure of 0.

    Args:
        scores: corpus scores of the same n examples.
        resamples: bootstrap resamples.
        seed: seed of the resampling.
        level: confidence level.

    Raises:
        ValueError: scores of different numbers of examples, no examples, or a setting out of range.

    Example:
        >>> from kvar.tasks import mean_score
        >>> found = intervals({"gap": mean_score([1.0, 2.0, 3.0, 4.0] * 25)}, resamples=200)["gap"]
        >>> found.value, found.n, 2.2 < found.low < 2.4, 2.6 < found.high < 2.8
        (2.5, 100, True, True)
    """
    n = _check(scores, resamples, level)
    drawn = _drawn({name: s.rows for name, s in scores.items() if not s.share}, n, resamples, seed)
    sums: dict[str, list[NDArray[np.float64]]] = {name: [] for name, s in scores.items() if not s.share}
    for chunk in drawn:
        for name, rows in chunk.items():
            sums[name].append(rows)
    found = {}
    for name, score in scores.items():
        if score.share:
            found[name] = Interval(score.value, *wilson(score.value, n, level), n)
        else:
            found[name] = _percentile(score.value, _values(score.combine, sums[name]), n, level)
    return found


def difference(
    first: Mapping[str, CorpusScore],
    second: Mapping[str, CorpusScore],
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Second minus first of the scores that both have, on the same examples in the same order.

    Both models' statistics of an example are drawn together, so what makes an example easy or hard for both cancels.

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
    sums: dict[tuple[int, str], list[NDArray[np.float64]]] = {key: [] for key in rows}
    for chunk in _drawn(rows, n, resamples, seed):
        for key, part in chunk.items():
            sums[key].append(part)
    found = {}
    for name in names:
        values = _values(second[name].combine, sums[1, name]) - _values(first[name].combine, sums[0, name])
        found[name] = _percentile(second[name].value - first[name].value, values, n, level)
    return found


def _drawn(rows: Mapping, n: int, resamples: int, seed: int) -> Iterator[dict]:
    """The summed statistics of some resamples at a time, every score on the same draws: name -> (B, s)."""
    if not rows:
        return
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, CHUNK):
        picks = generator.integers(n, size=(min(CHUNK, resamples - start), n))
        counts = np.stack([np.bincount(pick, minlength=n) for pick in picks]).astype(np.float64)
        yield {name: counts @ part for name, part in rows.items()}


def _values(combine: Callable[[NDArray[np.float64]], float], sums: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.array([combine(row) for row in np.concatenate(sums)])


def _percentile(value: float, values: NDArray[np.float64], n: int, level: float) -> Interval:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return Interval(value, math.nan, math.nan, n)
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), n)


def _check(scores: Mapping[str, CorpusScore], resamples: int, level: float) -> int:
    counts = {len(score) for score in scores.values()}
    if len(counts) > 1:
        raise ValueError(f"scores are of different numbers of examples ({sorted(counts)}); evaluate the same ones.")
    n = counts.pop() if counts else 0
    if n == 0:
        raise ValueError("no examples to resample: score at least one.")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1; got {resamples}.")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, such as 0.95; got {level}.")
    return n
