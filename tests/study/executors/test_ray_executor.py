"""Ray without a cluster: options, what is checked, and when a cell is begun again."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from kvar import __version__
from kvar.commands.main import main
from kvar.records.lock import lock_folder
from kvar.study.executors.local import Job
from kvar.study.executors.ray_cluster import RayCluster, check_node, run_cell


class LostError(Exception):
    """A worker's death."""


class FakeRay(types.ModuleType):
    """A cluster in whose nodes nothing runs: task number i ends as ``ends[i]`` says."""

    def __init__(self, ends: list[Any], nodes: list[dict[str, float]]) -> None:
        super().__init__("ray")
        self.__path__ = []
        self.ends, self.resources = ends, nodes
        self.begun: list[tuple[str, dict[str, Any]]] = []
        self.cancelled: list[int] = []
        errors = ("WorkerCrashedError", "NodeDiedError", "OutOfMemoryError", "LocalRayletDiedError")
        self.exceptions = types.ModuleType("ray.exceptions")
        for name in errors:
            setattr(self.exceptions, name, LostError)

    def is_initialized(self) -> bool:
        return True

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "NodeID": str(i), "Resources": r} for i, r in enumerate(self.resources)]

    def remote(self, **once: Any) -> Any:
        def options(**more: Any) -> Any:
            given = once | more

            def begin(job: Job, *rest: Any) -> int:
                self.begun.append((job.name, given))
                return len(self.begun) - 1

            return types.SimpleNamespace(remote=begin)

        return lambda function: types.SimpleNamespace(options=options)

    def wait(self, references: list[int], **options: Any) -> tuple[list[int], list[int]]:
        return references[:1], references[1:]

    def get(self, reference: int) -> Any:
        if isinstance(self.ends[reference], Exception):
            raise self.ends[reference]
        return self.ends[reference]

    def cancel(self, reference: int, force: bool) -> None:
        self.cancelled.append(reference)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(ends: list[Any], nodes: list[dict[str, float]] | None = None) -> FakeRay:
        fake = FakeRay(ends, nodes or [{"CPU": 4.0}])
        monkeypatch.setitem(sys.modules, "ray", fake)
        monkeypatch.setitem(sys.modules, "ray.exceptions", fake.exceptions)
        monkeypatch.setattr("kvar.study.executors.ray_cluster.find_spec", lambda name: True)
        monkeypatch.setattr("kvar.study.executors.ray_cluster.check_nodes", lambda nodes, arguments: None)
        return fake

    return make


def test_a_lost_cell_is_begun_again_a_failed_one_is_not(cluster: Any, tmp_path: Path) -> None:
    lost = LostError("The worker died.\nmore")
    fake = cluster([lost, LostError("The node died."), None, "ValueError: bad", lost, lost, lost])
    said: list[str] = []
    executor = RayCluster(tmp_path / "out", retries=2, say=said.append)
    executor.start(Job("a", {}, overwrite=True))
    assert executor.wait() == ("a", None)
    executor.start(Job("b", {}))
    assert executor.wait() == ("b", "ValueError: bad")
    executor.start(Job("c", {}))
    assert executor.wait() == ("c", "lost 3 times, the last time by The worker died")
    assert [name for name, _ in fake.begun] == ["a", "a", "a", "b", "c", "c", "c"]
    assert said[:2] == [
        "a was lost (The worker died); it is started again (1 of 2)",
        "a was lost (The node died); it is started again (2 of 2)",
    ]
    once = {"max_calls": 1, "max_retries": 0, "num_cpus": 1, "runtime_env": {"env_vars": {"OMP_NUM_THREADS": "1"}}}
    assert all(once.items() <= options.items() for _, options in fake.begun)


def test_a_defect_in_a_worker_is_the_cells_own(cluster: Any, tmp_path: Path) -> None:
    cluster([KeyError("x")])
    executor = RayCluster(tmp_path / "out")
    executor.start(Job("a", {}))
    assert executor.wait() == ("a", "KeyError: 'x'")


def test_close_cancels_and_takes_the_token_away(cluster: Any, tmp_path: Path) -> None:
    fake = cluster([None, None])
    executor = RayCluster(tmp_path / "out")
    executor.close()  # nothing was begun: no cluster was joined
    executor.start(Job("a", {}))
    executor.start(Job("b", {}))
    assert len(list((tmp_path / "out").glob(".ray-*"))) == 1
    executor.close()
    assert fake.cancelled == [0, 1] and not list((tmp_path / "out").iterdir())


def test_places_follow_the_clusters_resources(cluster: Any, tmp_path: Path) -> None:
    fake = cluster([], [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 3.0, "GPU": 4.0}, {"CPU": 16.0}])
    executor = RayCluster(tmp_path / "out")
    assert executor.slots == 2 + 3 and executor.gpus == 1.0  # a GPU each, where there are any
    fake.resources = fake.resources[:1]
    assert executor.slots == 2
    fake.resources = []
    assert executor.slots == 1  # which waits for a node
    with pytest.raises(ValueError, match="no node of the Ray cluster has room .* the most are 0 CPUs"):
        _ = RayCluster(tmp_path / "out").slots
    fake.resources = [{"CPU": 6.0}, {"CPU": 2.0}]
    assert RayCluster(tmp_path / "out", gpus=0, cpus=2.5).slots == 2
    fake.resources = [{"CPU": 8.0}]
    large = RayCluster(tmp_path / "out", cpus=9)
    with pytest.raises(
        ValueError, match="no node of the Ray cluster has room for a cell of 9 CPUs and 0 GPUs; the most"
    ):
        _ = large.slots


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cell-gpus", "1"], "--cell-gpus is for a Ray cluster; add --ray"),
        (["--ray-address", "a:1"], "--ray-address is for a Ray cluster"),
        (["--ray", "--jobs", "2"], "--jobs 2 is for this machine"),
        (["--ray", "--cell-cpus", "0"], "cell_cpus must be above 0; got 0"),
        (["--ray", "--cell-gpus", "2"], "cell_gpus must be from 0 to 1; got 2.0"),
        (["--ray", "--cell-retries", "-1"], "cell_retries must be 0 or more"),
        (["--ray", "--ray-address", "ray://a:1"], "give host:port"),
    ],
)
def test_bad_options(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvar.study.executors.ray_cluster.find_spec", lambda name: True)
    assert main(["study", "demo", "--output", str(tmp_path / "out"), *words]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvar.study.executors.ray_cluster.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"ray is not installed; pip install 'kvar\[ray\]', or leave out --ray"):
        RayCluster(tmp_path)


def test_no_cluster_answers(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs kvar[ray]")
    executor = RayCluster(tmp_path / "out", address="127.0.0.1:9")
    with pytest.raises(ValueError, match=r"no Ray cluster answers at 127.0.0.1:9 .*refused.*ray start --head"):
        _ = executor.slots
    assert not (tmp_path / "out").exists()


def test_a_node_says_why_it_cannot_run_cells(tmp_path: Path) -> None:
    (tmp_path / "token").touch()
    here = str(tmp_path)
    assert check_node(here, here, "token", __version__) is None
    assert "does not see the study's folder" in str(check_node(here, here, "other", __version__))
    assert "where the study was started" in str(check_node(f"{here}/none", here, "token", __version__))
    assert "was started with 0.0.0. Install the same" in str(check_node(here, here, "token", "0.0.0"))


def test_what_a_cell_prints_goes_to_its_log_and_its_error_comes_back(tmp_path: Path) -> None:
    (tmp_path / "token").touch()
    script = (
        "import os, sys; from kvar.study.executors.ray_cluster import Job, run_cell; said = os.fdopen(os.dup(1), 'w')\n"
        "said.write(run_cell(Job('cell', {'output_dir': 'out/cell'}), *sys.argv[1:]))"
    )
    where = (str(tmp_path), str(tmp_path), "token", __version__)
    done = subprocess.run([sys.executable, "-c", script, *where], capture_output=True, text=True, check=True)
    log = tmp_path / "out" / "cell" / "output.log"
    assert done.stdout.startswith("ValueError: no student") and done.stdout.endswith("(log: out/cell/output.log)")
    assert log.read_text().splitlines()[-1] == done.stdout.partition(" (log: ")[0]
    assert "does not see" in str(run_cell(Job("cell", {}), *where[:2], "gone", __version__))


def test_a_cell_waits_for_the_process_that_still_holds_its_folder(tmp_path: Path) -> None:
    script = "import sys; from kvar.records.lock import lock_folder; from pathlib import Path\n"
    script += "lock = lock_folder(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match="another process is writing this run"):
            lock_folder(tmp_path, seconds=0.3)
        process.stdin.close()
        lock_folder(tmp_path, seconds=30)
