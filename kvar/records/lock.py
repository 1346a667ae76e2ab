"""One writing process a run: an advisory lock that the system releases when the process dies, however it dies."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO
from weakref import WeakValueDictionary

from kvar.records.errors import RecordsError

if sys.platform != "win32":  # on Windows two writers are not told apart
    import fcntl

__all__ = ["FolderLock", "lock_folder"]


class FolderLock:
    """A held lock; released when its last holder lets go of it."""

    def __init__(self, folder: Path) -> None:
        self._stream: IO[bytes] = open(folder / ".lock", "ab")  # noqa: SIM115 (held as long as the lock)
        if sys.platform == "win32":
            return
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._stream.close()
            raise RecordsError(
                f"{folder}: another process is writing this run. Wait for it, or choose another folder."
            ) from None

    def __del__(self) -> None:
        self._stream.close()


_HELD: WeakValueDictionary[Path, FolderLock] = WeakValueDictionary()


def lock_folder(folder: Path) -> FolderLock:
    """Lock a run's folder against other processes; writers of this process share the lock.

    Raises:
        RecordsError: another process holds it.
    """
    folder = folder.resolve()
    lock = _HELD.get(folder)
    if lock is None:
        lock = _HELD[folder] = FolderLock(folder)
    return lock
