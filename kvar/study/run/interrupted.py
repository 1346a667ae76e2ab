"""The error message after Ctrl-C: what a run's folder keeps, and how to resume."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["InterruptedRunError", "interrupted_run"]


class InterruptedRunError(KeyboardInterrupt):
    """Ctrl-C during a run; the message says what is kept and how to resume."""


@contextmanager
def interrupted_run(folder: Path) -> Iterator[None]:
    """Raise InterruptedRunError for the run in ``folder`` in place of ``KeyboardInterrupt``."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise InterruptedRunError(_kept(folder)) from error


def _kept(folder: Path) -> str:
    from kvar.distill.trainer.checkpoints import last_checkpoint

    last = last_checkpoint(folder) if folder.is_dir() else None
    if (folder / "model").is_dir():
        return f"{folder} keeps its trained student; run the same command again to score it."
    if last is None:
        return (
            f"{folder} has no checkpoint yet; the same command starts again (save_steps sets how often one is saved)."
        )
    return f"{folder} keeps {last.name} and the records up to it; run the same command again to resume from it."
