"""``kvar study --list``, and the SLURM array script with a stand-in for SLURM."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kvar.commands.main import main
from kvar.study.grid.cells import cells_of, read_study, starts_first

SCRIPT = Path(__file__).parents[3] / "docs" / "howto" / "study.sbatch"
STUDY = """
common: {task: arithmetic, min_problem_steps: 1, max_problem_steps: 1, objective: sft, train_limit: 16, max_steps: 1,
  per_device_train_batch_size: 4, eval_limit: 2, max_new_tokens: 8, use_cpu: true, disable_tqdm: true, report_to: none}
students: {small: {model_type: t5, d_model: 8, d_kv: 4, num_heads: 2, d_ff: 8, num_layers: 1}}
stages: [{name: start, seeds: [7]}, {name: more, from: start, learning_rate: 1.0e-3}]
seeds: [0, 1]
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(STUDY)
    return tmp_path


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["study", "study.yaml", "--list", *words]) == 0
    return capsys.readouterr().out.splitlines()


def test_list_names_starts_first_and_writes_nothing(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [cell.name for cell in cells_of(read_study("study.yaml"))][-1] == "small/start/seed-7"  # as the file has it
    assert listed(capsys) == ["small/start/seed-7", "small/more/seed-0", "small/more/seed-1"]
    assert listed(capsys, "--only", "more") == ["small/more/seed-0", "small/more/seed-1"]
    assert [path.name for path in study.iterdir()] == ["study.yaml"]
    cells = starts_first(cells_of(read_study("table")))
    names = [cell.name for cell in cells]
    assert len(names) == 351 and all(c.needs is None or names.index(c.needs) < i for i, c in enumerate(cells))


def test_cell_by_cell_in_the_order_of_the_list(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = listed(capsys)
    last = ["study", "study.yaml", "--output", "out", "--only", cells[-1]]
    assert main(last) == 2  # its start has not run
    assert "starts from small/start/seed-7, which has not run in out" in capsys.readouterr().err
    for name in cells:
        assert main(["study", "study.yaml", "--output", "out", "--only", name]) == 0
        assert (study / "out" / name / "evaluation.json").is_file()
    capsys.readouterr()
    assert main(last) == 0
    assert "1 cells, 1 done before, 0 now" in capsys.readouterr().out


def task(study: Path, index: int, kvar: str) -> subprocess.Popen[str]:
    """A task of the array, as SLURM would start it."""
    scontrol = study / "bin" / "scontrol"
    scontrol.parent.mkdir(exist_ok=True)
    scontrol.write_text('#!/bin/bash\necho "scontrol $*"\n')
    scontrol.chmod(0o755)
    environment = {
        **os.environ, "PATH": f"{scontrol.parent}:{os.environ['PATH']}", "SLURM_ARRAY_JOB_ID": "40",
        "SLURM_ARRAY_TASK_ID": str(index), "SLURM_CPUS_PER_TASK": "1", "KVAR": kvar,
    }  # fmt: skip
    command = ["bash", str(SCRIPT), "study.yaml", "out", "cells.txt", "--max_steps", "1"]
    return subprocess.Popen(command, cwd=study, env=environment, stdout=-1, stderr=subprocess.STDOUT, text=True)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_array_script_runs_its_line(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (study / "cells.txt").write_text("\n".join(listed(capsys)) + "\n")
    for index, status, text in ((1, 0, "1 done now"), (2, 0, "1 done now"), (9, 2, "no line 9 in cells.txt")):
        done = task(study, index, f"{sys.executable} -m kvar") if index == 1 else task(study, index, "echo 1 done now")
        said, _ = done.communicate(timeout=300)
        assert done.returncode == status, said
        assert text in said.replace("0 done before, 1 now", "1 done now")
        if index == 2:
            assert said.split("now ")[1].strip() == (
                "study study.yaml --output out --only small/more/seed-0 --max_steps 1"
            )
    assert (study / "out/small/start/seed-7/evaluation.json").is_file()
    failed = task(study, 1, "false")
    failed.communicate(timeout=60)
    assert failed.returncode == 1


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_array_script_goes_back_into_the_queue(study: Path) -> None:
    (study / "cells.txt").write_text("a\nb\n")
    cell = study / "cell.sh"
    cell.write_text('trap "echo ended; exit 143" TERM\necho begun > begun\nwhile true; do sleep 0.05; done\n')
    running = task(study, 2, f"bash {cell}")
    end = time.monotonic() + 60
    while not (study / "begun").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    running.send_signal(signal.SIGUSR1)
    said, _ = running.communicate(timeout=60)
    assert running.returncode == 0
    assert said.splitlines() == ["b: time is up; put back into the queue", "ended", "scontrol requeue 40_2"]
