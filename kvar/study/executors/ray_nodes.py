"""A Ray cluster as a study sees it: joining it, what its nodes have room for, and whether they can run cells."""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Sequence
from typing import Any

from kvar.study.executors.ray_cell import check_node

__all__ = ["check_nodes", "connect", "first_line", "lost_errors", "places"]

NODE_SECONDS = 120.0  # a worker's first task imports kvar


def check_nodes(nodes: Sequence[dict[str, Any]], arguments: tuple[str, str, str, str]) -> None:
    """Ask each node whether it can run cells.

    Args:
        nodes: what ``ray.nodes()`` gave.
        arguments: those of ``check_node``.

    Raises:
        ValueError: one cannot; the message says which, why, and what to do.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    answers = {}
    for node in nodes:
        where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        task = ray.remote(check_node).options(num_cpus=0, scheduling_strategy=where, max_retries=0)
        answers[task.remote(*arguments)] = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
    for reference, name in answers.items():
        try:
            wrong = ray.get(reference, timeout=NODE_SECONDS)
        except Exception as error:  # whatever keeps a node from answering, kvar's absence among it
            remedy = f"Install kvar {arguments[-1]} there, in the Python that runs Ray"
            wrong = f"cannot run kvar: {first_line(error)}. {remedy}."
        if wrong is not None:
            raise ValueError(f"node {name} of the Ray cluster {wrong}")


def places(resources: dict[str, float], cpus: float, gpus: float) -> int:
    """Cells that a node has places for.

    >>> places({"CPU": 8.0, "GPU": 2.0}, cpus=2, gpus=1), places({"CPU": 8.0}, cpus=3, gpus=0)
    (2, 2)
    >>> places({"CPU": 8.0, "GPU": 2.0}, cpus=1, gpus=0.4)  # a cell keeps to one GPU
    4
    """
    by_cpu = math.floor(resources.get("CPU", 0) / cpus + 1e-6)
    if not gpus:
        return by_cpu
    return min(by_cpu, math.floor(resources.get("GPU", 0)) * math.floor(1 / gpus + 1e-6))


def connect(address: str) -> None:
    """Join a cluster.

    Raises:
        ValueError: none answers.
    """
    import ray

    named = os.environ.get("RAY_ADDRESS") if address == "auto" else address
    remedy = "Start one (ray start --head), or give its head as --ray-address HOST:PORT."
    host, colon, port = (named or "").rpartition(":")
    if colon:  # ray itself would try for a long time, and then end this process
        try:
            socket.create_connection((host, int(port)), timeout=10.0).close()
        except (OSError, ValueError, OverflowError) as error:
            raise ValueError(f"no Ray cluster answers at {named} ({error}). {remedy}") from None
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f" at {named}" if named else ""
        raise ValueError(f"no Ray cluster answers{where} ({first_line(error)}). {remedy}") from None


def lost_errors() -> tuple[type[BaseException], ...]:
    """The errors of a cell that did not end by itself."""
    from ray import exceptions

    from kvar.study.executors.ray_cell import CellKilledError

    return (
        CellKilledError, exceptions.WorkerCrashedError, exceptions.NodeDiedError, exceptions.OutOfMemoryError,
        exceptions.LocalRayletDiedError,
    )  # fmt: skip


def first_line(error: BaseException) -> str:
    """What an error says first, without a full stop; of one that a task raised, what its cause says."""
    cause = getattr(error, "cause", None)
    text = str(cause if isinstance(cause, BaseException) else error)
    return next((line for line in text.splitlines() if line.strip()), type(error).__name__).strip().rstrip(".")
