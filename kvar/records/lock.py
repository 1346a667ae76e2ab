"""One writing process a run: a lock on its folder, which the system releases when the process ends."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from kvar.records.errors import RecordsError

__all__ = ["lock_folder"]


def lock_folder(folder: Path, seconds: float = 0.0) -> FileLock:
    """Lock a run's folder against other processes until the last reference to the lock is dropped.

    Writers of this process share one lock.

    Args:
        folder: of the run.
        seconds: how long to wait where another process holds it.

    Raises:
        RecordsError: another process still holds it.
    """
    lock = FileLock(folder.resolve() / ".lock", is_singleton=True, thread_local=False)
    if not lock.is_locked:
        try:
            lock.acquire(timeout=seconds)
        except Timeout:
            raise RecordsError(
                f"{folder}: another process is writing this run. Wait for it, or choose another folder."
            ) from None
    return lock
