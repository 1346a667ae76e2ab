"""Progress bars of transformers for files on this machine, which are read and written at once, left out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["without_bars"]


@contextmanager
def without_bars(quiet: bool = True) -> Iterator[None]:
    """Without transformers' bars ("Loading weights", "Writing model shards"); those switched off before stay off.

    Args:
        quiet: False leaves the bars, for a model that may have to be downloaded.
    """
    from transformers.utils import logging

    if not quiet or not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()
