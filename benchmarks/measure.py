"""Time, memory and operations of jobs, side by side in one process."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

Job = Callable[[], object]

_M_MMAP_THRESHOLD = -3


def interleaved(jobs: Mapping[str, Job], rounds: int, once: Iterable[str] = ()) -> dict[str, list[float]]:
    """Seconds of each job in each round, all jobs in turn, those of ``once`` in the first round alone.

    Seconds of this thread's processor time: equal to those on the clock where the machine is quiet and torch keeps to
    one thread (which is checked), and far less disturbed by other processes.
    """
    if torch.get_num_threads() != 1:
        raise RuntimeError(f"torch uses {torch.get_num_threads()} threads: set OMP_NUM_THREADS=1 before it starts.")
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(rounds):
        for name, job in jobs.items():
            if number and name in once:
                continue
            gc.collect()
            start = time.thread_time()
            job()
            seconds[name].append(time.thread_time() - start)
    return seconds


def peak_memory(job: Job, small: Job) -> float:
    """Bytes that a job adds at its peak to what is resident, in a forked child; NaN where /proc does not tell.

    The child has every allocation of 64 KiB or more returned to the system when freed, so that what is resident is
    what is in use. It does a small job of the same kind first, which brings in the code of the libraries (a child does
    not inherit these pages). The peak is the kernel's own record (VmHWM).
    """
    if platform.system() != "Linux" or not Path("/proc/self/clear_refs").exists():
        return float("nan")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 16)
            small()
            gc.collect()
            Path("/proc/self/clear_refs").write_text("5")
            before = _resident("VmRSS")
            job()
            os.write(write, str(_resident("VmHWM") - before).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return float(told) if told else float("nan")


class _Counter(TorchDispatchMode):
    """Adds up what torch.utils.flop_counter says of each call (its own mode wraps modules, which engines do too)."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if (count := flop_registry.get(func._overloadpacket)) is not None:
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


def operations(job: Job) -> float:
    """Floating-point operations of matrix products and attention, counted as they are called."""
    with _Counter() as counter:
        job()
    return float(counter.total)


def matmul_speed() -> float:
    """Operations a second of a large matrix product on this thread, the best of ten."""
    x, best = torch.randn(1024, 1024), float("inf")
    for _ in range(10):
        start = time.thread_time()
        x @ x
        best = min(best, time.thread_time() - start)
    return 2 * 1024**3 / best


def machine() -> str:
    """The machine, in general terms."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return (
        f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} thread used, "
        f"load average {os.getloadavg()[0]:.1f} at the start, {matmul_speed() / 1e9:.0f} GFLOP/s in a matrix product, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def _resident(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")
