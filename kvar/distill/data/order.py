"""The order of the training examples: it depends on (seed, epoch) alone, on one process and on many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from kvar.rollouts.seeds import stream_seed

__all__ = ["LengthBatches", "ShuffledExamples"]


class _ByEpoch(Sampler[int]):
    """A sampler whose order depends on ``epoch``."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives."""
        self.epoch = epoch


class ShuffledExamples(_ByEpoch):
    """All examples in random order.

    torch's own sampler draws its order from the process's random state, which accelerate treats differently on one
    process and on several.

    Args:
        examples: number of examples.
        seed: seed of the order.

    Example:
        >>> sampler = ShuffledExamples(5, seed=0)
        >>> first = list(sampler)
        >>> sampler.set_epoch(1)
        >>> sorted(first) == sorted(sampler) and first != list(sampler)
        True
    """

    def __init__(self, examples: int, seed: int) -> None:
        self.examples, self.seed = examples, seed

    def __len__(self) -> int:
        return self.examples

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(stream_seed(self.seed, self.epoch))
        yield from torch.randperm(self.examples, generator=generator).tolist()


class LengthBatches(_ByEpoch):
    """Example indices in batches of similar length, the batches in random order.

    The length-grouped sampler of transformers goes from longest to shortest within every fifty batches; this one
    shuffles the batches. The order depends on (seed, epoch) alone, so a resumed run sees the order of an
    uninterrupted one.

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
