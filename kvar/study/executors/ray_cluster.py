"""The cells of a study on a Ray cluster, a task each; needs the extra ``kvar[ray]``."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kvar._version import __version__
from kvar.study.executors.local import Job
from kvar.study.executors.ray_cell import run_cell
from kvar.study.executors.ray_nodes import check_nodes, connect, first_line, lost_errors, places

__all__ = ["RayCluster"]


class RayCluster:
    """Runs each cell as a Ray task; on its node the cell has a process of its own, which ends with its Ray worker.

    The cluster is joined, and its nodes are looked at, when the first cell is due. A cell whose worker or node dies is
    begun again, on whichever node has room, and goes on from its last checkpoint; a cell that fails by itself is not.

    Args:
        folder: the study's folder, on a file system that the nodes share, as the working folder is.
        address: of the cluster's head, host:port; "auto" for RAY_ADDRESS, or the cluster that this machine is part of.
        cpus: processors a cell takes, which are its threads too.
        gpus: GPUs a cell takes, at most 1; default 1 on a cluster with GPUs, else 0.
        retries: how often a cell is begun again after its worker or node died.
        say: told of cells that are begun again.

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
            raise ValueError("ray is not installed; pip install 'kvar[ray]', or leave out --ray to run cells here.")
        if cpus <= 0:
            raise ValueError(f"cell_cpus must be above 0; got {cpus}.")
        if gpus is not None and not 0 <= gpus <= 1:
            raise ValueError(
                f"cell_gpus must be from 0 to 1; got {gpus}. A cell of several GPUs is for accelerate launch."
            )
        if retries < 0:
            raise ValueError(f"cell_retries must be 0 or more; got {retries}.")
        if address.startswith("ray://"):
            raise ValueError(f"ray_address {address!r} is Ray Client's; give host:port, on a node of the cluster.")
        self.folder, self.here = Path(folder).absolute(), str(Path.cwd())
        self.address, self.cpus, self.gpus, self.retries, self.say = address, cpus, gpus, retries, say
        self._token = f".ray-{uuid.uuid4().hex}"
        self._joined = self._own = False
        self._running: dict[Any, Job] = {}
        self._attempts: dict[str, int] = {}

    @property
    def slots(self) -> int:
        """Cells that the cluster, as it is now, has places for; at least 1, which waits where there is none."""
        self._join()
        return max(1, sum(self._places(node) for node in self._nodes()))

    def start(self, job: Job) -> None:
        """Hand the job to Ray."""
        self._join()
        self._attempts[job.name] = self._attempts.get(job.name, 0) + 1
        import ray

        options = {"num_cpus": self.cpus, "num_gpus": self.gpus, "max_retries": 0, "name": job.name}
        task = ray.remote(run_cell).options(**options)
        threads = max(1, int(self.cpus))
        reference = task.remote(job, self.here, str(self.folder), self._token, __version__, threads)
        self._running[reference] = job

    def wait(self) -> tuple[str, str | None]:
        """Wait for a cell to end; one whose worker was lost is begun again."""
        import ray

        while True:
            ready, _ = ray.wait(list(self._running), num_returns=1, timeout=1.0)
            for reference in ready:
                job = self._running.pop(reference)
                try:
                    return job.name, ray.get(reference)
                except lost_errors() as error:
                    what = first_line(error).partition(". ")[0]
                except Exception as error:  # a defect in the worker: the other cells have nothing to do with it
                    return job.name, f"{type(error).__name__}: {first_line(error)}"
                tried = self._attempts[job.name]
                if tried > self.retries:
                    return job.name, f"lost {tried} times, the last time by {what}"
                self.say(f"{job.name} was lost ({what}); it is begun again ({tried} of {self.retries})")
                self.start(job)

    def close(self) -> None:
        """Cancel what still runs, and leave the cluster."""
        if not self._joined:
            return
        import ray

        for reference in self._running:
            ray.cancel(reference, force=True)
        if self._running:
            ray.wait(list(self._running), num_returns=len(self._running), timeout=10.0)
        self._running.clear()
        (self.folder / self._token).unlink(missing_ok=True)
        if self._own:
            ray.shutdown()
        self._joined = False

    def _join(self) -> None:
        """Join the cluster and look at its nodes, once."""
        if self._joined:
            return
        import ray

        if not ray.is_initialized():
            connect(self.address)
            self._own = True
        self._joined = True
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / self._token).write_text("kvar looks here whether the nodes of a Ray cluster see this folder\n")
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
        check_nodes(nodes, (self.here, str(self.folder), self._token, __version__))

    def _nodes(self) -> list[dict[str, Any]]:
        import ray

        return [node for node in ray.nodes() if node["Alive"]]

    def _places(self, node: dict[str, Any]) -> int:
        return places(node["Resources"], self.cpus, self.gpus or 0.0)
