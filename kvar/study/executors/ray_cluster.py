"""Run the cells of a study on a Ray cluster, each as a task in its own worker; needs the extra ``kvar[ray]``."""

from __future__ import annotations

import logging
import math
import os
import socket
import uuid
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kvar._version import __version__
from kvar.records.lock import lock_folder
from kvar.study.executors.local import LOG, InProcess, Job

__all__ = ["RayCluster"]

LOCK_SECONDS = 60.0  # time for the worker of a lost attempt to release its run's folder
NODE_SECONDS = 120.0  # a worker's first task imports kvar


class RayCluster:
    """Runs each cell as a Ray task, in a Ray worker that runs nothing else.

    The cluster is joined, and its nodes are checked, at the first cell. A cell whose worker or node dies is started
    again, on any node with room, and resumes from its last checkpoint; a cell that fails is not. Attempts are counted
    by this class, because Ray's retries are silent, and unbounded where memory runs out.

    Args:
        folder: the study's folder; it and the working folder are on a file system that the nodes share.
        address: of the cluster's head, host:port; "auto" for RAY_ADDRESS, or the cluster that this machine is part of.
        cpus: processors, and threads, of a cell.
        gpus: GPUs of a cell, at most 1; default 1 on a cluster with GPUs, else 0.
        retries: most restarts of a cell whose worker or node died.
        say: called with a line for each restart.

    Raises:
        ValueError: ray is not installed, or a number out of range. ``slots`` and :meth:`start` raise it where no
            cluster answers, no node has room for a cell, or one does not see the study's folder.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        address: str = "auto",
        cpus: float = 1,
        gpus: float | None = None,
        retries: int = 3,
        say: Callable[[str], None] = lambda text: print(text, flush=True),
    ) -> None:
        if find_spec("ray") is None:
            raise ValueError("ray is not installed; pip install 'kvar[ray]', or leave out --ray.")
        if cpus <= 0:
            raise ValueError(f"cell_cpus must be above 0; got {cpus}.")
        if gpus is not None and not 0 <= gpus <= 1:
            raise ValueError(
                f"cell_gpus must be from 0 to 1; got {gpus}. For several GPUs per cell use accelerate launch."
            )
        if retries < 0:
            raise ValueError(f"cell_retries must be 0 or more; got {retries}.")
        if address.startswith("ray://"):
            raise ValueError(f"ray_address {address!r} is Ray Client's; give host:port, on a node of the cluster.")
        self.folder = Path(folder).absolute()
        self.address, self.cpus, self.gpus, self.retries, self.say = address, cpus, gpus, retries, say
        self._token = f".ray-{uuid.uuid4().hex}"
        self._where = (str(Path.cwd()), str(self.folder), self._token, __version__)
        self._joined = self._connected = False
        self._running: dict[Any, Job] = {}
        self._attempts: dict[str, int] = {}

    @property
    def slots(self) -> int:
        """Number of cells that the cluster now has room for; at least 1, which waits where there is none."""
        self._join()
        return max(1, sum(self._places(node) for node in self._nodes()))

    def start(self, job: Job) -> None:
        """Start the job as a Ray task."""
        self._join()
        self._attempts[job.name] = self._attempts.get(job.name, 0) + 1
        import ray

        threads = str(max(1, int(self.cpus)))
        task = ray.remote(max_calls=1, max_retries=0)(run_cell).options(
            num_cpus=self.cpus,
            num_gpus=self.gpus,
            name=job.name,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": threads}},
        )
        self._running[task.remote(job, *self._where)] = job

    def wait(self) -> tuple[str, str | None]:
        """Wait for a cell to end; one whose worker is lost is started again."""
        import ray
        from ray.exceptions import LocalRayletDiedError, NodeDiedError, OutOfMemoryError, WorkerCrashedError

        while True:
            ready, _ = ray.wait(list(self._running), num_returns=1, timeout=1.0)
            for reference in ready:
                job = self._running.pop(reference)
                try:
                    return job.name, ray.get(reference)
                except (LocalRayletDiedError, NodeDiedError, OutOfMemoryError, WorkerCrashedError) as error:
                    what = first_line(error).partition(". ")[0]
                except Exception as error:  # the other cells go on
                    return job.name, f"{type(error).__name__}: {first_line(error)}"
                tried = self._attempts[job.name]
                if tried > self.retries:
                    return job.name, f"lost {tried} times, the last time by {what}"
                self.say(f"{job.name} was lost ({what}); it is started again ({tried} of {self.retries})")
                self.start(job)

    def close(self) -> None:
        """Cancel the running cells and leave the cluster."""
        if not self._joined:
            return
        import ray

        for reference in self._running:
            ray.cancel(reference, force=True)
        if self._running:
            ray.wait(list(self._running), num_returns=len(self._running), timeout=10.0)
        self._running.clear()
        (self.folder / self._token).unlink(missing_ok=True)
        if self._connected:
            ray.shutdown()
        self._joined = False

    def _join(self) -> None:
        """Join the cluster and check its nodes, once."""
        if self._joined:
            return
        import ray

        if not ray.is_initialized():
            connect(self.address)
            self._connected = True
        self._joined = True
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / self._token).write_text("checks that the nodes of a Ray cluster see this folder\n")
        nodes = self._nodes()
        if self.gpus is None:
            self.gpus = 1.0 if any(node["Resources"].get("GPU", 0) >= 1 for node in nodes) else 0.0
        nodes = [node for node in nodes if self._places(node)]
        if not nodes:
            largest = {
                kind: max((n["Resources"].get(kind, 0) for n in self._nodes()), default=0) for kind in ("CPU", "GPU")
            }
            raise ValueError(
                f"no node of the Ray cluster has room for a cell of {self.cpus:g} CPUs and {self.gpus:g} GPUs; the "
                f"most are {largest['CPU']:g} CPUs and {largest['GPU']:g} GPUs. Lower --cell-cpus or --cell-gpus."
            )
        check_nodes(nodes, self._where)

    def _nodes(self) -> list[dict[str, Any]]:
        import ray

        return [node for node in ray.nodes() if node["Alive"]]

    def _places(self, node: dict[str, Any]) -> int:
        return places(node["Resources"], self.cpus, self.gpus or 0.0)


def check_nodes(nodes: list[dict[str, Any]], arguments: tuple[str, str, str, str]) -> None:
    """Raise ValueError for the first of ``ray.nodes()`` where ``check_node(*arguments)`` reports a fault."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    answers = {}
    for node in nodes:
        where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        task = ray.remote(check_node).options(num_cpus=0, scheduling_strategy=where, max_retries=0)
        answers[task.remote(*arguments)] = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
    for reference, name in answers.items():
        try:
            fault = ray.get(reference, timeout=NODE_SECONDS)
        except Exception as error:  # such as a node without kvar
            remedy = f"Install kvar {arguments[-1]} on it, in the Python that runs Ray"
            fault = f"cannot run kvar: {first_line(error)}. {remedy}."
        if fault is not None:
            raise ValueError(f"node {name} of the Ray cluster {fault}")


def places(resources: dict[str, float], cpus: float, gpus: float) -> int:
    """The number of cells that a node has room for.

    >>> places({"CPU": 8.0, "GPU": 2.0}, cpus=2, gpus=1), places({"CPU": 8.0}, cpus=3, gpus=0)
    (2, 2)
    >>> places({"CPU": 8.0, "GPU": 2.0}, cpus=1, gpus=0.4)  # a cell uses one GPU only
    4
    """
    by_cpu = math.floor(resources.get("CPU", 0) / cpus + 1e-6)
    if not gpus:
        return by_cpu
    return min(by_cpu, math.floor(resources.get("GPU", 0)) * math.floor(1 / gpus + 1e-6))


def connect(address: str) -> None:
    """Join a cluster; ValueError where none answers."""
    import ray

    named = os.environ.get("RAY_ADDRESS") if address == "auto" else address
    remedy = "Start one (ray start --head), or give its head as --ray-address HOST:PORT."
    host, colon, port = (named or "").rpartition(":")
    if colon:  # ray would try for a long time and then end this process
        try:
            socket.create_connection((host, int(port)), timeout=10.0).close()
        except (OSError, ValueError, OverflowError) as error:
            raise ValueError(f"no Ray cluster answers at {named} ({error}). {remedy}") from None
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f" at {named}" if named else ""
        raise ValueError(f"no Ray cluster answers{where} ({first_line(error)}). {remedy}") from None


def check_node(start: str, folder: str, token: str, version: str) -> str | None:
    """Check whether cells can run on this machine.

    Args:
        start: the folder that the study was started from, absolute.
        folder: the study's folder, absolute.
        token: name of a file in it.
        version: of kvar where the study was started.

    Returns:
        The fault and its remedy, or None.
    """
    from kvar._version import __version__

    shared = "Put it on a file system that all nodes share, under the same path."
    if not (Path(folder) / token).is_file():
        return f"does not see the study's folder {folder}. {shared}"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"cannot write to the study's folder {folder}. {shared}"
    if not Path(start).is_dir():
        return f"does not see {start}, where the study was started. {shared}"
    if __version__ != version:
        return f"has kvar {__version__}, but the study was started with {version}. Install the same version."
    return None


def run_cell(job: Job, start: str, folder: str, token: str, version: str) -> str | None:
    """Run a cell in the folder ``start``, in this Ray worker, with output to ``output.log`` in the run's folder.

    The arguments behind the job are those of :func:`check_node`. Returns the error, or None.
    """
    fault = check_node(start, folder, token, version)  # the node may have joined after the study started
    if fault is not None:
        return f"node {os.uname().nodename} {fault}"
    os.chdir(start)
    run = Path(str(job.values["output_dir"]))
    run.mkdir(parents=True, exist_ok=True)
    lock = lock_folder(run, LOCK_SECONDS)  # the worker of a lost attempt may be about to end
    with open(run / LOG, "ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    executor = InProcess()
    executor.start(job)
    _, error = executor.wait()
    del lock
    if error is not None:
        print(error, flush=True)
    return error and f"{error} (log: {run / LOG})"


def first_line(error: BaseException) -> str:
    """The first line of an error, or of its cause where a task raised it, without a full stop."""
    cause = getattr(error, "cause", None)
    text = str(cause if isinstance(cause, BaseException) else error)
    return next((line for line in text.splitlines() if line.strip()), type(error).__name__).strip().rstrip(".")
