"""What a Ray worker does for a study: look whether its machine can run cells, and run one in a process of its own.

Nothing here imports ray: workers call these functions as tasks.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from kvar.study.executors.local import Job, begin_process, what_happened

__all__ = ["CellKilledError", "check_node", "run_cell"]

LOCK_SECONDS = 60.0  # how long the process of a lost worker may still hold its run's folder


class CellKilledError(RuntimeError):
    """A cell's process was ended by a signal: worth another attempt."""


def check_node(here: str, folder: str, token: str, version: str) -> str | None:
    """Whether cells can run on this machine.

    Args:
        here: the folder that the study was started from, absolute.
        folder: the study's folder, absolute.
        token: name of a file in it.
        version: kvar's, where the study was started.

    Returns:
        What is wrong and its remedy, or None.
    """
    from kvar._version import __version__

    shared = "Put it on a file system that all nodes share, under the same path."
    if not (Path(folder) / token).is_file():
        return f"does not see the study's folder {folder}. {shared}"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"cannot write to the study's folder {folder}. {shared}"
    if not Path(here).is_dir():
        return f"does not see {here}, where the study was started. {shared}"
    if __version__ != version:
        return f"has kvar {__version__}, but the study was started with {version}. Install the same version."
    return None


def run_cell(job: Job, here: str, folder: str, token: str, version: str, threads: int) -> str | None:
    """Run a cell in a process of its own, which ends when this one does.

    Args:
        job: the cell.
        here: the folder to run it in; see ``check_node`` for the next three.
        folder: the study's.
        token: a file in it.
        version: kvar's.
        threads: of the process.

    Returns:
        What went wrong, or None.

    Raises:
        CellKilledError: a signal ended the process, as when memory runs out.
    """
    wrong = check_node(here, folder, token, version)  # the node may have come after the study began
    if wrong is not None:
        return f"node {os.uname().nodename} {wrong}"
    os.chdir(here)
    run = Path(str(job.values["output_dir"]))
    run.mkdir(parents=True, exist_ok=True)
    await_writer(run)
    process, log = begin_process(job, threads)
    status = process.wait()
    error = what_happened(status, log)
    if status < 0 and error is not None:
        raise CellKilledError(error)
    return error


def await_writer(run: Path, seconds: float = LOCK_SECONDS) -> None:
    """Wait until no other process writes a run: that of an earlier attempt may be about to end.

    Raises:
        RecordsError: it is still written after ``seconds``.
    """
    from kvar.records.errors import RecordsError
    from kvar.records.lock import lock_folder

    end = time.monotonic() + seconds
    while True:
        try:
            lock_folder(run)  # let go of at once
            return
        except RecordsError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
