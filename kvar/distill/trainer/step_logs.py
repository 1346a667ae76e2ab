"""An objective's logged numbers: means over rows, and losses summed over a step's micro-batches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

__all__ = ["StepLogs"]


class StepLogs:
    """Sums and weights by name, since the last log.

    A mean over a micro-batch's rows is weighted by their number; ``loss_<objective>`` is a micro-batch's share of its
    step's loss, so shares are summed and divided by the number of steps.

    Example:
        >>> logs = StepLogs()
        >>> logs.add({"gap": 1.0, "loss_sft": 0.5}, rows=3, micro_batches=2)
        >>> logs.add({"gap": 5.0, "loss_sft": 0.25}, rows=1, micro_batches=2)
        >>> logs.take()
        {'gap': 2.0, 'loss_sft': 0.75}
    """

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])

    def add(self, numbers: Mapping[str, float], *, rows: int, micro_batches: int) -> None:
        """Add one micro-batch's numbers.

        Args:
            numbers: by name; without rows only the names count.
            rows: number of rows, without repeats, that the means are over.
            micro_batches: number of micro-batches of the step on this process.
        """
        for name, number in numbers.items():
            share = name.startswith("loss_")
            weight = 1 / micro_batches if share else float(rows)
            entry = self.sums[name]
            if share or rows:
                entry[0] += number if share else number * rows
            entry[1] += weight

    def take(self, all_sum: Callable[[Tensor], Tensor] | None = None) -> dict[str, float]:
        """The means; clears the sums.

        Args:
            all_sum: sums a tensor over processes, which must all call with the same names; None for one process.
        """
        names = sorted(self.sums)
        sums = torch.tensor([self.sums[name] for name in names], dtype=torch.float64).reshape(-1, 2)
        self.sums.clear()
        if all_sum is not None and names:
            sums = all_sum(sums)
        return {name: total / weight for name, (total, weight) in zip(names, sums.tolist(), strict=True)}
