"""A kernel whose weight is constant over groups of lags, each with a weight of its own."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kvar.returns.kernels import Kernel, is_number, short

__all__ = ["Stepwise"]


@dataclass(frozen=True)
class Stepwise(Kernel):
    """w_0 = 1; from each first lag given to the next one the weight is constant, from the last one on to the end.

    Before the first lag given the weight is that of lag 0. Any weights are allowed, negative ones included, so the mean
    is another than that of all lags, theory.md (7). :func:`kvar.analysis.optimal_kernel` fits one to a measurement.

    Attributes:
        steps: (first lag, weight) of each group, first lags ascending from 1 or more.

    Raises:
        ValueError: no group, a first lag that is no integer or not above the one before, a weight that is not finite.

    Examples:
        >>> Stepwise([(1, -0.5), (3, 0.25)])([0, 1, 2, 3, 4]).tolist()
        [1.0, -0.5, -0.5, 0.25, 0.25]
        >>> Stepwise([(1, -0.5), (3, 0.25)]).name
        'stepwise(1:-0.5, 3:0.25)'
    """

    steps: tuple[tuple[int, float], ...]

    def __init__(self, steps: Iterable[tuple[int, float]]) -> None:
        listed: list[Any] = list(steps)
        last = 0
        for lag, weight in listed:
            if isinstance(lag, bool) or not isinstance(lag, numbers.Integral) or lag <= last:
                raise ValueError(
                    f"Stepwise: first lags must be integers, ascending from 1 (the weight of lag 0 is 1); got {lag!r} "
                    f"after {last}."
                )
            if not is_number(weight) or not math.isfinite(weight):
                raise ValueError(f"Stepwise: the weight from lag {lag} must be a finite number; got {weight!r}.")
            last = int(lag)
        if not listed:
            raise ValueError("Stepwise: name at least one group, for instance 'stepwise(1:0)'.")
        object.__setattr__(self, "steps", tuple((int(lag), float(weight)) for lag, weight in listed))

    @property
    def name(self) -> str:
        """For instance ``stepwise(1:-0.5, 3:0.25)``."""
        return f"stepwise({', '.join(f'{lag}:{short(weight)}' for lag, weight in self.steps)})"

    def _weights(self, lags: Tensor, remaining: Tensor | None) -> Tensor:
        starts = torch.tensor([lag for lag, _ in self.steps], device=lags.device)
        weights = torch.tensor([1.0, *(w for _, w in self.steps)], dtype=torch.float64, device=lags.device)
        return weights[torch.bucketize(lags, starts, right=True)]
