"""What a probe measures: return kernels, each with or without a baseline, under one name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kvar.returns import Kernel, TokenValues, parse_kernel, returns

__all__ = ["Estimator", "estimator_weights", "parse_estimators"]


@dataclass(frozen=True)
class Estimator:
    """A return kernel and the baseline subtracted from its returns.

    Attributes:
        kernel: which gaps count, theory.md (4).
        baseline: as in ``kvar.returns.returns``; None for none.
    """

    kernel: Kernel
    baseline: str | None = None

    @property
    def name(self) -> str:
        """The kernel's name, followed by "- baseline" where there is one."""
        return self.kernel.name if self.baseline is None else f"{self.kernel.name} - {self.baseline}"


def parse_estimators(text: str | Sequence[str], baseline: str | None = None) -> list[Estimator]:
    """Estimators from names such as ``"K=1, K=4 free, immediate, K=1 - leave-one-out"``.

    Args:
        text: names, or one text that separates them by commas; commas in parentheses belong to a name.
        baseline: for every name that has none of its own.

    Raises:
        ValueError: an unknown kernel, none at all, or the same estimator twice.

    Example:
        >>> [e.name for e in parse_estimators("1, 4, inf, K=1 - leave-one-out")]
        ['K=1', 'K=4', 'immediate', 'K=1 - leave-one-out']
        >>> [e.name for e in parse_estimators("lags(1, 0.5), 2")]
        ['lags(1, 0.5)', 'K=2']
    """
    words = [word.strip() for word in (re.split(r",(?![^()]*\))", text) if isinstance(text, str) else text)]
    found = []
    for word in filter(None, words):
        kernel, _, own = word.partition(" - ")
        found.append(Estimator(parse_kernel(kernel), own.strip() or baseline))
    names = [estimator.name for estimator in found]
    if not names:
        raise ValueError("kernels are empty: name at least one, for example K=1.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"kernels name {', '.join(twice)} twice; keep one of each.")
    return found


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
    """
    rows = [returns(values, mask, [e.kernel], baseline=e.baseline, prompt_index=prompt_index)[0] for e in estimators]
    return torch.stack(rows)
