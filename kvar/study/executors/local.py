"""Run the cells of a study in this process, one after another, or in several processes of this machine.

An executor takes jobs and returns, one by one, how they ended; grids and the order of cells are not its concern.
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
PLAIN = (ValueError, OSError, RuntimeError)  # errors shown without a traceback


@dataclass(frozen=True)
class Job:
    """One cell to run.

    Attributes:
        name: the cell's.
        values: all fields of its run, plain values.
        overwrite: discard a run in its folder.
    """

    name: str
    values: dict[str, Any]
    overwrite: bool = False


class Executor(Protocol):
    """Runs jobs, at most ``slots`` at a time."""

    @property
    def slots(self) -> int:
        """Number of jobs at a time, which may change while the study runs."""

    def start(self, job: Job) -> None:
        """Start a job; at most ``slots`` run at a time."""

    def wait(self) -> tuple[str, str | None]:
        """Wait for any job to end: its name, and the error or None."""

    def close(self) -> None:
        """Stop the running jobs."""


def run_job(job: Job) -> None:
    """Run a cell in this process; errors as of ``train_run``."""
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
        except Exception as error:  # the other cells go on
            if not isinstance(error, PLAIN):
                traceback.print_exc()
            return job.name, f"{type(error).__name__}: {error}"
        return job.name, None

    def close(self) -> None:
        """Nothing runs between two calls."""


class LocalProcesses:
    """Each job in its own process, whose output goes to ``output.log`` in the run's folder.

    ``OMP_NUM_THREADS`` of each process is its share of the processors, or the present value where that is lower. A
    process ends when its parent does, for whatever reason, so that a study can be started again at once.

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
        """Start a process."""
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
        """End the running processes."""
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
    """Start a process with ``threads`` threads that runs a cell and ends when this one does.

    Returns:
        The process, and the file that its output is appended to.
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
    with suppress(BrokenPipeError):  # the process died at once; its status says so
        process.stdin.write(text.encode() + b"\n")
        process.stdin.flush()  # left open: it closes when this process ends
    return process, log


def what_happened(status: int, log: Path) -> str | None:
    """The error of a process that ended: its signal, or the last line of its log; None for status 0."""
    if status == 0:
        return None
    if status < 0:
        out_of_memory = ", as when memory runs out" if status == -9 else ""
        return f"killed by signal {-status}{out_of_memory}; it resumes from its last checkpoint (log: {log})"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    last = next((line for line in reversed(lines) if line.strip()), f"exit status {status}")
    return f"{last} (log: {log})"
