"""Where the cells of a study run: in this process one after another, or in several processes of this machine.

An executor takes jobs and gives back, one by one, how they ended. It knows nothing of grids or of what waits for what,
so another place to run cells is one more class.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kvar.study.run.run import train_run
from kvar.study.settings.reading import settings_from

__all__ = ["Executor", "InProcess", "Job", "LocalProcesses", "begin_process", "run_job", "what_happened"]

LOG = "output.log"
PLAIN = (ValueError, OSError, RuntimeError)  # what a run raises by itself; anything else shows where it came from


@dataclass(frozen=True)
class Job:
    """One cell to run.

    Attributes:
        name: the cell's.
        values: all fields of its run, plain values.
        overwrite: throw away what is in its folder.
    """

    name: str
    values: dict[str, Any]
    overwrite: bool = False


class Executor(Protocol):
    """Runs jobs, at most ``slots`` at a time."""

    @property
    def slots(self) -> int:
        """Places for jobs, which may change while the study runs."""

    def start(self, job: Job) -> None:
        """Begin a job; at most ``slots`` have been begun and not yet been given back."""

    def wait(self) -> tuple[str, str | None]:
        """Wait for any begun job to end: its name, and what went wrong or None."""

    def close(self) -> None:
        """Stop whatever still runs."""


def run_job(job: Job) -> None:
    """Run a cell in this process; see ``train_run`` for what it raises."""
    train_run(*settings_from(dict(job.values), f"cell {job.name}"), overwrite=job.overwrite)


class InProcess:
    """One job after another, in this process."""

    slots = 1

    def __init__(self) -> None:
        self._job: Job | None = None

    def start(self, job: Job) -> None:
        """Remember the job; :meth:`wait` runs it."""
        self._job = job

    def wait(self) -> tuple[str, str | None]:
        """Run the job."""
        job, self._job = self._job, None
        assert job is not None
        try:
            run_job(job)
        except Exception as error:  # whatever it is, the other cells have nothing to do with it
            if not isinstance(error, PLAIN):
                traceback.print_exc()
            return job.name, f"{type(error).__name__}: {error}"
        return job.name, None

    def close(self) -> None:
        """Nothing runs between two calls."""


class LocalProcesses:
    """Each job in a process of its own; what it prints goes to ``output.log`` in the run's folder.

    The processors are shared out by ``OMP_NUM_THREADS``; where that is set to fewer, it is left. A process ends when
    the one that began it does, however that ends, so that a study can be given again at once.

    Args:
        slots: jobs at a time.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._running: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}

    @property
    def threads(self) -> int:
        """Threads of each process."""
        share = max(1, _processors() // self.slots)
        given = os.environ.get("OMP_NUM_THREADS", "")
        return min(share, int(given)) if given.isdigit() and int(given) > 0 else share

    def start(self, job: Job) -> None:
        """Begin a process."""
        self._running[job.name] = begin_process(job, self.threads)

    def wait(self) -> tuple[str, str | None]:
        """Wait for a process to end."""
        while True:
            for name, (process, log) in self._running.items():
                status = process.poll()
                if status is not None:
                    self._forget(name)
                    return name, what_happened(status, log)
            time.sleep(0.1)

    def close(self) -> None:
        """End the processes that still run."""
        for name, (process, _) in list(self._running.items()):
            process.terminate()
            process.wait()
            self._forget(name)

    def _forget(self, name: str) -> None:
        process, _ = self._running.pop(name)
        if process.stdin is not None:
            with suppress(BrokenPipeError):
                process.stdin.close()


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def begin_process(job: Job, threads: int) -> tuple[subprocess.Popen[bytes], Path]:
    """Begin a process that runs a cell, and ends when this one does.

    Args:
        job: the cell.
        threads: of the process.

    Returns:
        The process, and the file that what it prints is added to.
    """
    folder = Path(str(job.values["output_dir"]))
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / LOG
    with open(log, "ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "kvar.study.executors.cell_process"],
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
    text = json.dumps({"name": job.name, "values": job.values, "overwrite": job.overwrite}, default=str)
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it died at once, which its status will say
        process.stdin.write(text.encode() + b"\n")
        process.stdin.flush()  # left open: its end tells the process that this one is gone
    return process, log


def what_happened(status: int, log: Path) -> str | None:
    """What a process died of: its signal, or the last line it wrote, which is that of its traceback."""
    if status == 0:
        return None
    if status < 0:
        out_of_memory = ", as when memory runs out" if status == -9 else ""
        return f"killed by signal {-status}{out_of_memory}; it goes on from its last checkpoint (log: {log})"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    last = next((line for line in reversed(lines) if line.strip()), f"exit status {status}")
    return f"{last} (log: {log})"
