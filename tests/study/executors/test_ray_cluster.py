"""A study on a real Ray cluster of two nodes: a worker killed, a node lost, a cell that fails, and Ctrl-C."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from kvar.study.grid.run_grid import plan_study, read_study, run_study

pytest.importorskip("ray", reason="needs kvar[ray]")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc"),
    pytest.mark.filterwarnings("ignore"),
]

STUDY = """
common: {task: arithmetic, min_problem_steps: 1, max_problem_steps: 1, objective: sft, train_limit: 16, max_steps: 120,
  save_steps: 10, save_total_limit: 1, logging_steps: 10, per_device_train_batch_size: 4, eval_limit: 2,
  max_new_tokens: 8, use_cpu: true, disable_tqdm: true, report_to: none}
students: {small: {model_type: t5, d_model: 8, d_kv: 4, num_heads: 2, d_ff: 8, num_layers: 1}}
stages: [{name: start}, {name: more, from: start, learning_rate: 1.0e-3}, {name: bad, tokenizer: ./none, seeds: [0]}]
seeds: [0, 1]
"""
CELLS = [f"small/{method}/seed-{seed}" for seed in (0, 1) for method in ("start", "more")]


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def processes(folder: Path) -> dict[str, int]:
    """Cells of the study in ``folder`` that have a Ray worker, by where its output goes."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            log = Path(os.readlink(entry / "fd" / "1"))
            if log.name == "output.log" and log.is_relative_to(folder) and parent(int(entry.name)) > 1:
                found[str(log.parent.relative_to(folder))] = int(entry.name)
        except (OSError, ValueError):
            continue
    return found


def left_over(text: str) -> list[str]:
    """Command lines that hold the text."""
    lines = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(entry.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return [line for line in lines if text in line]


def until(condition: Callable[[], Any], seconds: float = 300.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            found = condition()
        except OSError:
            found = None
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come to pass")


# On a busy machine everything takes its time, a node's start above all.
PATIENCE = {
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_health_check_timeout_ms": "60000",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
}


def tell_ports(start_raylet: Any, *arguments: Any, **options: Any) -> Any:
    """Write a node's ports down before it starts: its helpers, which would, have too little time on a busy machine."""
    from ray import _raylet

    node, session = arguments[2], arguments[11]
    for name in ("METRICS_AGENT", "METRICS_EXPORT", "DASHBOARD_AGENT_LISTEN"):
        _raylet.persist_port(
            session, node, getattr(_raylet, f"{name}_PORT_NAME"), -1
        )  # what they write without Ray's extras
    _raylet.persist_port(session, node, _raylet.RUNTIME_ENV_AGENT_PORT_NAME, options["runtime_env_agent_port"])
    return start_raylet(*arguments, **options)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head node and another, of one processor each; wholly gone afterwards."""
    from ray._private import services
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="kr", dir="/tmp")  # short: a socket's path has 107 bytes
    node = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80 * 2**20, "include_log_monitor": False}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**PATIENCE, "RAY_TMPDIR": folder}.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setattr(services, "start_raylet", partial(tell_ports, services.start_raylet))
        made = Cluster()
        try:
            made.add_node(**node, runtime_env_agent_port=free_port(), include_dashboard=False, no_monitor=True)
            made.second = made.add_node(**node, runtime_env_agent_port=free_port())
            made.wait_for_nodes(timeout=300)
            yield made
        finally:
            made.shutdown()
            until(lambda: not left_over(folder), 60)
            shutil.rmtree(folder, ignore_errors=True)


def test_ctrl_c_ends_the_cells(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY.replace("max_steps: 120", "max_steps: 100000"))
    output = tmp_path / "out"
    command = [sys.executable, "-m", "kvar", "study", "study.yaml", "--output", "out", "--only", "start"]
    command += ["--ray", "--ray-address", cluster.address]
    study = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    until(lambda: len(processes(output)) == 2 and len(list(output.glob("*/*/*/checkpoint-*"))) >= 2)
    assert [*output.glob(".ray-*")]
    study.send_signal(signal.SIGINT)
    said, _ = study.communicate(timeout=60)
    assert study.returncode != 0 and "[1/2] small/start/seed-0" in said
    until(lambda: not processes(output), 30)
    assert not [*output.glob(".ray-*")]


def test_what_is_not_seen_is_told_before_any_cell(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kvar.study.executors.ray_cluster import RayCluster

    study = {**yaml.safe_load(STUDY)}
    with pytest.raises(
        ValueError, match="no node of the Ray cluster has room for a cell of 4 CPUs and 0 GPUs; the most are 1"
    ):
        run_study(study, tmp_path / "a", executor=RayCluster(tmp_path / "a", address=cluster.address, cpus=4))
    monkeypatch.setattr("pathlib.Path.write_text", lambda self, text: None)  # as if written to another machine's disk
    with pytest.raises(ValueError, match=r"node .* does not see the study's folder .*/b\. Put it on a file system"):
        run_study(study, tmp_path / "b", executor=RayCluster(tmp_path / "b", address=cluster.address))
    assert not processes(tmp_path) and not list(tmp_path.glob("b/small"))


def test_a_worker_killed_and_a_node_lost_half_way(cluster: Any, tmp_path: Path) -> None:
    from kvar.study.executors.ray_cluster import RayCluster

    (tmp_path / "study.yaml").write_text(STUDY)
    study = read_study(str(tmp_path / "study.yaml"))
    output = tmp_path / "out"
    raylet = cluster.second.all_processes["raylet"][0].process.pid
    broken: list[str] = []

    def running(on_second: bool) -> tuple[str, int] | None:
        """A cell that has a checkpoint and runs on this node, and its Ray worker."""
        for name, worker in processes(output).items():
            begun = name not in broken and list((output / name).glob("checkpoint-*/trainer_state.json"))
            if begun and (parent(worker) == raylet) == on_second:
                return name, worker
        return None

    def break_things() -> None:
        name, worker = until(lambda: running(on_second=False))
        os.kill(worker, signal.SIGKILL)
        broken.append(name)
        name, _ = until(lambda: running(on_second=True))
        broken.append(name)
        cluster.remove_node(cluster.second, allow_graceful=False)

    breaker = threading.Thread(target=break_things, daemon=True)
    breaker.start()
    said: list[str] = []
    begin = time.monotonic()
    executor = RayCluster(output, address=cluster.address, say=said.append)
    failed = run_study(study, output, executor=executor, say=said.append)
    print(f"{time.monotonic() - begin:.0f} s", *said, sep="\n")
    breaker.join(1)
    assert set(failed) == {"small/bad/seed-0"}  # reported, and the rest went on
    assert all("none" in what and "output.log" in what for what in failed.values())
    again = [line for line in said if "was lost" in line]
    assert sorted(line.split()[0] for line in again) == sorted(broken) and len(broken) == 2
    for name in CELLS:
        log = (output / name / "output.log").read_text()
        assert (output / name / "evaluation.json").is_file()
        assert log.count("training examples") == 1 + (name in broken)  # begun once, twice where it was broken off
        assert ("resuming from" in log) == (name in broken)
    until(lambda: not processes(output), 30)  # a worker that has given its result back ends by itself
    assert not [*output.glob(".ray-*")]

    states = {item.cell.name: item.state for item in plan_study(study, output)}
    assert {name for name, state in states.items() if state == "done"} == set(CELLS)
    logs = [(output / name / "output.log").stat().st_size for name in CELLS]
    executor = RayCluster(output, address=cluster.address)
    assert run_study(study, output, only=["start", "more"], executor=executor, say=said.append) == {}
    assert said[-1] == "study: 4 cells, 4 done before, 0 now, 0 failed"
    assert logs == [(output / name / "output.log").stat().st_size for name in CELLS]
