"""A study runs: starts before what needs them, failed cells, killed cells, several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kvar.study.executors.local import Job, LocalProcesses
from kvar.study.grid.run_grid import plan_study, run_study

STUDY: dict[str, Any] = {
    "common": {
        "task": "arithmetic", "min_problem_steps": 1, "max_problem_steps": 1, "objective": "sft", "train_limit": 16,
        "max_steps": 2, "save_steps": 1, "logging_steps": 1, "per_device_train_batch_size": 4, "eval_limit": 2,
        "max_new_tokens": 8, "use_cpu": True, "disable_tqdm": True, "report_to": "none",
    },
    "students": {"small": {"model_type": "t5", "d_model": 8, "d_kv": 4, "num_heads": 2, "d_ff": 8, "num_layers": 1}},
    "stages": [{"name": "start"}, {"name": "more", "from": "start", "learning_rate": 1e-3}],
    "seeds": [0, 1],
}  # fmt: skip
CELLS = [f"small/{method}/seed-{seed}" for seed in (0, 1) for method in ("start", "more")]


class Recorded:
    """An executor that runs nothing: cells end in the order given, or fail; it checks what it is given."""

    def __init__(self, slots: int, failing: dict[str, str] | None = None, last: str = "") -> None:
        self.slots, self.failing, self.last = slots, failing or {}, last
        self.started: list[str] = []
        self.running: list[str] = []
        self.most = 0
        self.closed = False

    def start(self, job: Job) -> None:
        self.started.append(job.name)
        self.running.append(job.name)
        self.most = max(self.most, len(self.running))

    def wait(self) -> tuple[str, str | None]:
        name = next((n for n in self.running if n != self.last), self.running[0])
        self.running.remove(name)
        return name, self.failing.get(name)

    def close(self) -> None:
        self.closed = True


def test_starts_come_first_and_no_place_is_left_idle(tmp_path: Path) -> None:
    executor = Recorded(2, last=CELLS[0])
    assert run_study(STUDY, tmp_path, executor=executor, say=lambda text: None) == {}
    assert executor.started == [CELLS[0], CELLS[2], CELLS[3], CELLS[1]]  # seed 1's second does not wait for seed 0
    assert executor.most == 2 and executor.closed


def test_a_failed_cell_stops_what_starts_from_it_alone(tmp_path: Path) -> None:
    said: list[str] = []
    executor = Recorded(1, {CELLS[0]: "OSError: broken"})
    failed = run_study(STUDY, tmp_path, executor=executor, say=said.append)
    assert failed == {CELLS[0]: "OSError: broken", CELLS[1]: f"not run: {CELLS[0]}, from which it starts, failed"}
    assert executor.started == [CELLS[0], CELLS[2], CELLS[3]]
    assert "study: 4 cells, 0 done before, 2 now, 2 failed" in said


@pytest.mark.parametrize(("jobs", "environment", "message"), [(0, "1", "number from 1"), (2, "2", "accelerate launch")])
def test_bad_jobs(jobs: int, environment: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", environment)
    with pytest.raises(ValueError, match=message):
        run_study(STUDY, tmp_path / "out", jobs=jobs)
    assert not (tmp_path / "out").exists()


def test_any_failure_in_this_process_is_the_cells_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(settings: Any, training: Any, *, overwrite: bool) -> None:
        if training.seed == 0:
            raise KeyError("a defect")

    monkeypatch.setattr("kvar.study.executors.local.train_run", train)
    failed = run_study({**STUDY, "stages": STUDY["stages"][:1]}, tmp_path, say=lambda text: None)
    assert failed == {CELLS[0]: "KeyError: 'a defect'"}


def test_processors_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvar.study.executors.local._processors", lambda: 8)
    for given, slots, expected in (("", 2, 4), ("3", 2, 3), ("16", 2, 4), ("none", 16, 1)):
        monkeypatch.setenv("OMP_NUM_THREADS", given)
        assert LocalProcesses(slots).threads == expected


def test_processes_one_killed_and_one_failed_and_going_on(tmp_path: Path) -> None:
    """One cell's process is killed after a checkpoint, another's fails; given again, the study goes on from there."""
    executor = LocalProcesses(2)
    start = executor.start

    def start_and_kill(job: Job) -> None:
        start(job)
        if job.name == "small/start":
            process, _ = executor._running[job.name]
            deadline = time.monotonic() + 120
            while not (tmp_path / job.name / "checkpoint-4").is_dir() and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)

    executor.start = start_and_kill  # type: ignore[method-assign]
    common = {**STUDY["common"], "max_steps": 20, "save_steps": 4}
    bad = {"name": "bad", "tokenizer": str(tmp_path / "none")}
    study = {"common": common, "students": STUDY["students"], "stages": [{"name": "start"}, bad]}
    said: list[str] = []
    failed = run_study(study, tmp_path, executor=executor, say=said.append)
    assert set(failed) == {"small/start", "small/bad"} and "killed by signal 9" in failed["small/start"]
    assert str(tmp_path / "none") in failed["small/bad"] and "small/bad/output.log" in failed["small/bad"]
    assert [i.state for i in plan_study(study, tmp_path)] == ["begun", "to run"]

    assert run_study(study, tmp_path, jobs=2, only=["start"], say=said.append) == {}
    assert said[-2:] == ["[1/1] small/start done", "study: 1 cells, 0 done before, 1 now, 0 failed"]
    log = (tmp_path / "small/start/output.log").read_text()
    assert "resuming from" in log and (tmp_path / "small/start/evaluation.json").is_file()
    nothing = Recorded(1)
    assert run_study(study, tmp_path, only=["start"], executor=nothing, say=said.append) == {}
    assert nothing.started == []


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_a_cells_process_ends_with_the_one_that_began_it(tmp_path: Path) -> None:
    child = "import time, kvar.study.executors.local as e; e.run_job = lambda job: time.sleep(60)\n"
    child += "from kvar.study.executors.cell_process import main; raise SystemExit(main())"
    process = subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE, env={**os.environ})
    assert process.stdin is not None
    process.stdin.write(b'{"name": "x", "values": {}}\n')
    process.stdin.flush()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    process.stdin.close()
    assert process.wait(60) == 3
