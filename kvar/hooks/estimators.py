"""What a probe measures: return kernels of the teacher's gaps, each with or without a baseline, under one name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kvar.estimators import Estimator
from kvar.estimators import parse_estimators as parse_any
from kvar.returns import TokenValues, returns

__all__ = ["Estimator", "check_plain", "estimator_weights", "parse_estimators"]


def parse_estimators(text: str | Sequence[str], baseline: str | None = None) -> list[Estimator]:
    """Estimators from names such as ``"K=1, K=4 free, immediate, K=1 - leave-one-out"``.

    Args:
        text: names, or one text that separates them by commas; commas in parentheses belong to a name.
        baseline: for every name that has none of its own.

    Raises:
        ValueError: an unknown kernel, none at all, the same estimator twice, or one that probes do not take.

    Example:
        >>> [e.name for e in parse_estimators("1, 4, inf, K=1 - leave-one-out")]
        ['K=1', 'K=4', 'immediate', 'K=1 - leave-one-out']
        >>> [e.name for e in parse_estimators("lags(1, 0.5), 2")]
        ['lags(1, 0.5)', 'K=2']
    """
    if not any(word.strip() for word in ([text] if isinstance(text, str) else text)):
        raise ValueError("kernels are empty: name at least one, for example K=1.")
    found = parse_any(text, baseline)
    check_plain(found)
    return found


def check_plain(estimators: Sequence[Estimator]) -> None:
    """Refuse estimators that need more than the teacher's values of the sampled tokens.

    Raises:
        ValueError: names the first.
    """
    for estimator in estimators:
        if not estimator.plain:
            raise ValueError(
                f"estimator {estimator.name!r} is none that a probe takes: kernels of the gap, and the baselines "
                "teacher-value, batch-mean, position-mean and leave-one-out. Measure others by "
                "kvar.estimators.gather and kvar.gradients.gradient_moments."
            )


def estimator_weights(
    estimators: Sequence[Estimator], values: TokenValues, mask: Tensor, prompt_index: Tensor
) -> Tensor:
    """The weights of log pi(y_t | s_t) that make each estimator, theory.md (5).

    Args:
        estimators: E of them.
        values: (N, T) teacher values.
        mask: (N, T).
        prompt_index: (N,), for leave-one-out baselines.

    Returns:
        (E, N, T), zero where masked.

    Raises:
        ValueError: an estimator that is more than a weight by q and V.
    """
    check_plain(estimators)
    rows = []
    for e in estimators:
        baseline = None if e.baseline is None else str(e.baseline)  # plain: a name
        rows.append(returns(values, mask, [e.kernel], baseline=baseline, prompt_index=prompt_index)[0])
    return torch.stack(rows)
