"""A function run on two processes over gloo, each of which saves what it saw as RANK.pt.

The processes are forked from one that has imported torch and the function's module, and see what torchrun would set.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch

from tests.browser import free_port


def results(function: Callable[[Path], None], folder: Path) -> list[dict[Any, Any]]:
    """What either process saved; the function is called with the folder."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([function.__module__])
    port = free_port()
    running = [processes.Process(target=_run, args=(function, folder, rank, port)) for rank in range(2)]
    for process in running:
        process.start()
    alive = list(running)
    while alive:
        ended = wait([process.sentinel for process in alive], timeout=600)
        if not ended or any(process.exitcode for process in alive):
            break  # the other would wait for ever
        alive = [process for process in alive if process.sentinel not in ended]
    for process in alive:
        process.kill()
    for process in running:
        process.join()
    assert [process.exitcode for process in running] == [0, 0]
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def _run(function: Callable[[Path], None], folder: Path, rank: int, port: int) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port), CUDA_VISIBLE_DEVICES="",
    )  # fmt: skip
    torch.set_num_threads(1)
    function(folder)
