"""The order of the training examples: it depends on (seed, epoch) alone, on one process and on many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from kvar.rollouts.seeds import stream_seed

__all__ = ["LengthBatches", "ShuffledExamples"]


class ShuffledExamples(Sampler[int]):
    """All examples in random order.

    torch's own sampler draws its order from the process's random state, which accelerate treats differently on one
    process and on several.

    Args:
        examples: how many there are.
        seed: seed of the order.

    Example:
        >>> sampler = ShuffledExamples(5, seed=0)
        >>> first = list(sampler)
        >>> sampler.set_epoch(1)
        >>> sorted(first) == sorted(sampler) and first != list(sampler)
        True
    """

    def __init__(self, examples: int, seed: int) -> None:
        self.examples, self.seed, self.epoch = examples, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is handed out next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.examples

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(stream_seed(self.seed, self.epoch))
        yield from torch.randperm(self.examples, generator=generator).tolist()


class LengthBatches(Sampler[int]):
    """Example indices such that each batch holds examples of like length, and batches come in random order.

    transformers' own length-grouped sampler hands out its groups from longest to shortest, fifty batches at a time, so
    that the student sees lengths in waves; here the batches are shuffled. The order depends on (seed, epoch) alone, so
    a resumed run sees what an uninterrupted one does.

    Args:
        lengths: tokens of every example.
        batch: examples of a batch.
        seed: seed of the order.
        pool: batches that are sorted by length together; more means less padding and less randomness.

    Example:
        >>> order = list(LengthBatches([5, 1, 5, 1, 5, 1], batch=3, seed=0))
        >>> sorted(sorted(order[:3]) + sorted(order[3:]))
        [0, 1, 2, 3, 4, 5]
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int, pool: int = 50) -> None:
        self.lengths, self.batch, self.seed, self.pool = torch.as_tensor(lengths), batch, seed, pool
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is handed out next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator)
        groups = [group[self.lengths[group].argsort(stable=True)] for group in order.split(self.batch * self.pool)]
        batches = [batch for group in groups for batch in group.split(self.batch)]
        full = [batch for batch in batches if len(batch) == self.batch]
        rest = [batch for batch in batches if len(batch) < self.batch]  # last, or batches would no longer line up
        for i in torch.randperm(len(full), generator=generator).tolist():
            yield from full[i].tolist()
        for batch in rest:
            yield from batch.tolist()
