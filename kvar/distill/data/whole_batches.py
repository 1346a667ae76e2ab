"""``dataloader_drop_last``: training drops a last batch that is not full; evaluation never does."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from contextlib import contextmanager
from typing import Any

__all__ = ["check_whole_batches", "rows_together", "whole_batches_only"]


def rows_together(accelerator: Any, batch_size: int) -> int:
    """Rows of one batch of every process."""
    split = bool(getattr(accelerator, "split_batches", False))
    return batch_size if split else batch_size * int(accelerator.num_processes)


def check_whole_batches(dataset: Any, settings: Any, together: int) -> None:
    """Raise ValueError where ``dataloader_drop_last`` leaves no training rows: fewer than ``together``, one batch."""
    if not settings.dataloader_drop_last or not isinstance(dataset, Sized) or len(dataset) >= together:
        return
    raise ValueError(
        f"dataloader_drop_last is true, and the {len(dataset)} training rows do not fill one batch of {together} "
        f"(per_device_train_batch_size {settings.per_device_train_batch_size}), so nothing would be trained on. Set it "
        "false, or make batches smaller."
    )


@contextmanager
def whole_batches_only(settings: Any, value: bool) -> Iterator[None]:
    """Set ``dataloader_drop_last`` inside a with block."""
    before, settings.dataloader_drop_last = settings.dataloader_drop_last, value
    try:
        yield
    finally:
        settings.dataloader_drop_last = before
