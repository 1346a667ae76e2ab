"""Length-grouped batches: everything once, like lengths together, no waves, repeatable."""

from __future__ import annotations

import torch

from kvar.distill.data.order import LengthBatches


def test_every_example_once_and_batches_of_like_length() -> None:
    lengths = torch.randint(1, 60, (1003,), generator=torch.Generator().manual_seed(0)).tolist()
    order = list(LengthBatches(lengths, batch=16, seed=1))
    assert sorted(order) == list(range(1003))
    spread = [max(b) - min(b) for b in ([lengths[i] for i in order[k : k + 16]] for k in range(0, 992, 16))]
    assert sorted(spread)[len(spread) // 2] <= 4


def test_lengths_do_not_come_in_waves() -> None:
    lengths = list(range(3200))
    order = list(LengthBatches(lengths, batch=32, seed=1))
    means = torch.tensor([sum(order[k : k + 32]) / 32 for k in range(0, 3200, 32)])
    change = (means[1:] - means[:-1]).sign()
    longest = max(
        len(run)
        for run in "".join("+" if c > 0 else "-" for c in change).replace("+-", "+ -").replace("-+", "- +").split()
    )
    assert longest <= 8  # a sorted pool of 50 batches would run for 49


def test_order_depends_on_seed_and_epoch_alone() -> None:
    sampler = LengthBatches(list(range(100)), batch=8, seed=3)
    first = list(sampler)
    torch.manual_seed(123)
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    assert list(sampler) == first
