"""Scores of a corpus as functions of sums over its examples, which makes resampling cheap."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["CorpusScore", "mean_score", "named_score", "ratio_score", "values_of"]


@dataclass(frozen=True, eq=False)
class CorpusScore:
    """A score that depends on the examples only through sums of their statistics.

    Examples are corpus BLEU (sums of n-gram matches and totals) and means (sum of values, number of examples).

    Attributes:
        rows: (n, s) float64, the statistics of every example.
        combine: (s,) sums over any examples -> the score.
        single: one example's statistics -> its score, where that is another formula than ``combine``.
        share: whether the score is a share of the examples, whose interval is binomial.

    Example:
        >>> score = mean_score([1.0, 0.0, 1.0, 1.0])
        >>> score.value, score.combine(score.rows[1:3].sum(axis=0))
        (0.75, 0.5)
    """

    rows: NDArray[np.float64]
    combine: Callable[[NDArray[np.float64]], float]
    share: bool = False
    single: Callable[[NDArray[np.float64]], float] | None = None

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.rows)

    @property
    def value(self) -> float:
        """The score of all examples."""
        return float(self.combine(self.rows.sum(axis=0)))

    @property
    def each(self) -> list[float]:
        """The score of every example on its own, for instance sentence chrF."""
        return [float((self.single or self.combine)(row)) for row in self.rows]


def mean_score(values: ArrayLike, scale: float = 1.0, *, share: bool = False) -> CorpusScore:
    """The mean of one value per example, times ``scale``; NaN without examples."""
    column = np.asarray(values, dtype=np.float64).reshape(-1)
    return ratio_score(column, np.ones_like(column), scale, share=share)


def ratio_score(
    numerators: ArrayLike, denominators: ArrayLike, scale: float = 1.0, *, share: bool = False
) -> CorpusScore:
    """The ratio of two sums over examples (such as gap per token), times ``scale``; NaN where the denominator is 0."""
    rows = np.stack([np.asarray(x, dtype=np.float64).reshape(-1) for x in (numerators, denominators)], axis=1)

    def combine(sums: NDArray[np.float64]) -> float:
        return float(scale * sums[0] / sums[1]) if sums[1] else float("nan")

    return CorpusScore(rows, combine, share)


def named_score(scores: Mapping[str, CorpusScore], name: str) -> CorpusScore:
    """The score called ``name``; ValueError where there is none."""
    if name not in scores:
        raise ValueError(f"score {name!r} is unknown for this task; choose one of: {', '.join(scores)}.")
    return scores[name]


def values_of(scores: Mapping[str, CorpusScore]) -> dict[str, float]:
    """The value of every score."""
    return {name: score.value for name, score in scores.items()}


def check_pairs(predictions: Sequence[str], references: Sequence[str]) -> None:
    """Raise ValueError for different numbers of predictions and references, or a string in place of a list."""
    for name, texts in (("predictions", predictions), ("references", references)):
        if isinstance(texts, str):
            raise ValueError(f"{name} must be a list of texts; got one string. Give [text].")
    if len(predictions) != len(references):
        raise ValueError(
            f"{len(predictions)} predictions for {len(references)} references; every reference needs one prediction."
        )
