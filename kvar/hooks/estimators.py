"""Estimators by name, and the token weights of those that depend on q and V only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from kvar.estimators import Estimator
from kvar.estimators import parse_estimators as parse_any
from kvar.returns import Kernel, TokenValues, returns

__all__ = ["Estimator", "check_plain", "estimator_weights", "estimators_of", "parse_estimators"]


def parse_estimators(text: str | Sequence[str], baseline: str | None = None) -> list[Estimator]:
    """Estimators from names such as ``"K=1, K=4 free, kl immediate exact, K=1 - leave-one-out"``.

    Args:
        text: names, or one text that separates them by commas; see :func:`kvar.estimators.parse_estimators`.
        baseline: for every name without one.

    Raises:
        TypeError: something that holds no names.
        ValueError: an unknown word, no estimator, or the same one twice.

    Example:
        >>> [e.name for e in parse_estimators("1, 4, inf, K=1 - leave-one-out")]
        ['K=1', 'K=4', 'immediate', 'K=1 - leave-one-out']
        >>> [e.name for e in parse_estimators("lags(1, 0.5), kl 2")]
        ['lags(1, 0.5)', 'kl K=2']
    """
    if isinstance(text, str | Sequence) and not any(
        str(w).strip() for w in ([text] if isinstance(text, str) else text)
    ):
        raise ValueError("kernels are empty: name at least one, for example K=1.")
    return parse_any(text, baseline)


def estimators_of(given: Any, baseline: str | None = None) -> tuple[Estimator, ...]:
    """Estimators from names, numbers, kernels and estimators in any mix.

    Args:
        given: one or several.
        baseline: for every kernel and name without one.

    Raises:
        TypeError: ``given`` is neither one of these nor a collection of them.
        ValueError: as :func:`parse_estimators`.
    """
    several = [given] if isinstance(given, str | int | float | Kernel | Estimator) else given
    if not isinstance(several, Iterable):
        raise TypeError(
            f"kernels must be names, numbers, kernels or estimators, for instance '1, 4'; got {type(given).__name__}."
        )
    estimators: list[Estimator] = []
    for one in several:
        if isinstance(one, Estimator):
            estimators.append(one)
        else:
            estimators += (
                [Estimator(one, baseline)] if isinstance(one, Kernel) else parse_estimators(str(one), baseline)
            )
    return tuple(estimators)


def check_plain(
    estimators: Sequence[Estimator], remedy: str = " Measure others by kvar.measure or GradientProbe."
) -> None:
    """Refuse estimators that need more than the teacher's values of the sampled tokens.

    Raises:
        ValueError: names the first.
    """
    for estimator in estimators:
        if not estimator.plain:
            raise ValueError(
                f"estimator {estimator.name!r} is more than a weight by q and V, that is, a kernel of the gap with no "
                f"baseline, teacher-value, batch-mean, position-mean or leave-one-out.{remedy}"
            )


def estimator_weights(
    estimators: Sequence[Estimator], values: TokenValues, mask: Tensor, prompt_index: Tensor
) -> Tensor:
    """The token weights of each estimator, whose gradient is that of sum_t weight_t log pi(y_t | s_t), theory.md (5).

    Args:
        estimators: E estimators.
        values: (N, T) teacher values.
        mask: (N, T).
        prompt_index: (N,), for leave-one-out baselines.

    Returns:
        (E, N, T), zero where masked.

    Raises:
        ValueError: an estimator that is more than a weight by q and V.
    """
    check_plain(estimators)
    alike: dict[str | None, list[int]] = {}
    for number, e in enumerate(estimators):
        alike.setdefault(None if e.baseline is None else str(e.baseline), []).append(number)  # plain: a name
    rows: dict[int, Tensor] = {}
    for baseline, numbers in alike.items():
        kernels = [estimators[number].kernel for number in numbers]
        weights = returns(values, mask, kernels, baseline=baseline, prompt_index=prompt_index)
        rows.update(zip(numbers, weights, strict=True))
    return torch.stack([rows[number] for number in range(len(estimators))])
