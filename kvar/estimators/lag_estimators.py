"""Estimators of ever more lags, of which the best return kernel can be fitted; theory.md (25)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kvar.estimators.estimator import Estimator
from kvar.estimators.parse import parse_estimators
from kvar.returns import LLMR, Immediate, Window

__all__ = ["lag_estimators"]


def lag_estimators(
    estimator: str | Estimator = "gap K=1 exact expected - leave-one-out", lengths: Sequence[int] = (1, 2, 3, 5, 9, 17)
) -> list[Estimator]:
    """An estimator cut after some numbers of lags, and whole: their differences are one estimator a group of lags.

    The default's groups are the lags 0, 1, 2, 3-4, 5-8, 9-16, and 17 and more. Measured together they hold what
    :func:`kvar.analysis.optimal_kernel` needs.

    Args:
        estimator: of all lags, or its name; what it says of reward, exact and expected sums, baseline and correction
            holds for each.
        lengths: how many lags each counts, ascending; 1 is the immediate reward alone.

    Returns:
        One estimator a length, then the estimator itself.

    Raises:
        ValueError: an estimator of other than all lags, lengths that do not ascend from 1 or more, an estimator that
            does not parse.

    Example:
        >>> [e.name for e in lag_estimators("kl K=1 exact expected", (1, 2, 5))]
        ['kl immediate exact', 'kl window(2) exact expected', 'kl window(5) exact expected', 'kl K=1 exact expected']
    """
    whole = parse_estimators(estimator)[0] if isinstance(estimator, str) else estimator
    if whole.kernel != LLMR():
        raise ValueError(f"lag_estimators: {whole.name!r} does not count all lags; give one with K=1 as its kernel.")
    if not lengths or any(b <= a for a, b in zip((0, *lengths), lengths, strict=False)):
        raise ValueError(f"lag_estimators: lengths must ascend from 1 or more; got {list(lengths)}.")
    return [*(_cut(whole, int(length)) for length in lengths), whole]


def _cut(whole: Estimator, length: int) -> Estimator:
    if length > 1:
        return replace(whole, kernel=Window(length))
    alone = whole.immediate == "exact"  # no score is left to subtract a baseline from
    return replace(whole, kernel=Immediate(), future="sampled", baseline=None if alone else whole.baseline)
