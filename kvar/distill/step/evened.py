"""Fill the last batches of an epoch on several processes with repeated rows that are marked and have no weight.

All processes need the same number of batches of the same number of rows, or their gradient exchange never ends. As in
accelerate, rows of the epoch's start fill the gap; here they are marked (``REPEATED``), and loss, counts, baselines,
logs and probes leave them out (:mod:`kvar.distill.step.responses`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler

__all__ = ["REPEATED", "EvenedRows", "EvenedSampler", "MarkingCollator", "check_evened"]

REPEATED = "repeated"
"""Key of the mark: a bool in a row, a (B,) bool tensor in a batch's inputs."""


class EvenedRows(Dataset[dict[str, Any]]):
    """The n rows of a data set at indices 0 to n - 1, and again, marked as repeated, at n to 2n - 1.

    Args:
        rows: n rows, mappings.

    Example:
        >>> rows = EvenedRows([{"x": 5}, {"x": 7}])
        >>> len(rows), rows[1], rows[3]
        (2, {'x': 7, 'repeated': False}, {'x': 7, 'repeated': True})
    """

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.rows[index % len(self)], REPEATED: index >= len(self)}

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Several rows at once, for torch's data loader."""
        if not hasattr(self.rows, "__getitems__"):
            return [self[index] for index in indices]
        rows = self.rows.__getitems__([index % len(self) for index in indices])
        return [{**row, REPEATED: index >= len(self)} for row, index in zip(rows, indices, strict=True)]


class EvenedSampler(Sampler[int]):
    """Another sampler's order, filled up to whole rounds with its beginning at the indices of marked rows.

    Args:
        order: each of ``rows`` indices once.
        rows: n.
        batch: rows of a round: one batch of every process.

    Example:
        >>> list(EvenedSampler([2, 0, 1], rows=3, batch=4)), list(EvenedSampler([0], rows=1, batch=3))
        ([2, 0, 1, 5], [0, 1, 1])
    """

    def __init__(self, order: Any, rows: int, batch: int) -> None:
        self.order, self.rows, self.batch = order, rows, batch

    def set_epoch(self, epoch: int) -> None:
        """Pass the epoch on to the inner order."""
        if hasattr(self.order, "set_epoch"):
            self.order.set_epoch(epoch)

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch) * self.batch

    def __iter__(self) -> Iterator[int]:
        first: list[int] = []
        count = 0
        for index in self.order:
            if len(first) < self.batch:
                first.append(index)
            count += 1
            yield index
        for place in range(-count % self.batch):
            yield self.rows + first[place % len(first)]


@dataclass
class MarkingCollator:
    """A collator that moves the marks from the rows into their batch."""

    collator: Callable[[list[dict[str, Any]]], Any]

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The output of ``collator``, and ``REPEATED``."""
        marks = torch.tensor([bool(row[REPEATED]) for row in rows])
        plain = [{name: value for name, value in row.items() if name != REPEATED} for row in rows]
        return {**self.collator(plain), REPEATED: marks}


def check_evened(dataset: Any, settings: Any, *, training: bool) -> None:
    """Refuse a training or evaluation data set whose loader would repeat rows without marking them.

    Raises:
        ValueError: a stream on several processes; or ``batch_rebalance`` with a last step of fewer rows than it has
            batches.
    """
    if settings.dataloader_drop_last:
        return
    name = "train_dataset" if training else "eval_dataset"
    if not isinstance(dataset, Sized):
        if settings.world_size > 1:
            raise ValueError(
                f"{name} has no length, so {settings.world_size} processes cannot share its last rows without unmarked "
                "repeats: give a data set with a length, or set dataloader_drop_last true."
            )
        return
    batches = settings.gradient_accumulation_steps * settings.world_size
    if training and settings.train_sampling_strategy == "batch_rebalance":
        rest = len(dataset) % (settings.train_batch_size * batches)
        if 0 < rest < batches:
            raise ValueError(
                f"train_sampling_strategy batch_rebalance would repeat rows: the last step has {rest} for {batches} "
                "batches. Use group_by_length, or set dataloader_drop_last true."
            )
