"""kill -9 at any moment: the run goes on, ends with the same bytes, and loses or repeats no record.

A child process trains; it kills itself with SIGKILL inside the named call, so that nothing is flushed, closed or tidied
away. A second child finishes. Both are compared with a run that nobody killed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import kvar
import kvar.distill.trainer.checkpoints as checkpoints
import kvar.study.run.finish as finish
import kvar.study.run.run as run
from kvar.commands.main import main
from kvar.distill.trainer.trainer import DistillationTrainer
from kvar.hooks import GradientProbe
from kvar.records import TABLES, RunWriter

CONFIG = """
task: arithmetic
min_problem_steps: 1
max_problem_steps: 1
teacher: {teacher}
student_config: {{model_type: t5, d_model: 8, d_kv: 4, num_heads: 2, d_ff: 8, num_layers: 1, num_decoder_layers: 1}}
objective: ketchup
kernel: K=2
train_limit: 16
max_steps: 5
max_new_tokens: 6
per_device_train_batch_size: 2
gradient_accumulation_steps: 2
learning_rate: 1.0e-2
logging_steps: 3
save_steps: 2
save_total_limit: 2
eval_limit: 3
probe_every: 2
probe_prompts: 2
probe_rollouts: 2
probe_kernels: K=1, K=2
report_to: none
use_cpu: true
"""


def arm(owner: Any, name: str, call: int, *, after: bool = False) -> None:
    """Kill this process in the given call of a function, before or after it is done."""
    inner, calls = getattr(owner, name), [0]

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == call and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        out = inner(*args, **kwargs)
        if calls[0] == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return out

    setattr(owner, name, wrapped)


POINTS: dict[str, Callable[[], None]] = {
    "none": lambda: None,
    "mid step": lambda: arm(DistillationTrainer, "compute_loss", 6),  # between two micro-batches of step 3
    "during checkpoint save": lambda: arm(DistillationTrainer, "_save_rng_state", 2),  # weights are written, state not
    "before the checkpoint takes its name": lambda: arm(checkpoints, "_move", 2),
    "during probe": lambda: arm(GradientProbe, "measure", 2, after=True),
    "between a probe's tables": lambda: arm(RunWriter, "append", 6),
    "during final evaluation": lambda: arm(finish, "replace_file", 1),
    "after the model is saved": lambda: arm(run, "save_student", 1, after=True),
}


def child(point: str, config: str, folder: str) -> None:
    """The life of a process of its own."""
    torch.set_num_threads(1)
    POINTS[point]()
    sys.exit(main(["train", config, "--output_dir", folder]))


QUICK = ("during checkpoint save",)
SLOW = (
    "mid step",
    "before the checkpoint takes its name",
    "during probe",
    "between a probe's tables",
    "during final evaluation",
    "after the model is saved",
)
CLOCK = ("seconds", "runtime", "per_second")  # measured by a clock, different in every run


def train(point: str, config: Path, folder: Path) -> int:
    """The child's exit status."""
    processes = multiprocessing.get_context("forkserver")  # one process imports, and is forked for each child
    processes.set_forkserver_preload([__name__])
    process = processes.Process(target=child, args=(point, str(config), str(folder)))
    process.start()
    process.join(300)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode


def tables(folder: Path) -> dict[str, pd.DataFrame]:
    loaded = kvar.load(folder)
    out = {name: loaded.read(name) for name in TABLES}
    metrics = out["metrics"]
    timed = metrics["name"].astype(str).str.contains("|".join(CLOCK))
    order = ["step", "split", "name"]
    out["metrics"] = metrics[~timed].astype({"split": str, "name": str}).sort_values(order, ignore_index=True)
    assert not metrics.duplicated(order).any()  # nothing twice
    return out


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from kvar.distill import build_model
    from kvar.tasks import ArithmeticTask

    folder = tmp_path_factory.mktemp("kill")
    tokenizer = ArithmeticTask(1, 1).build_tokenizer()
    shape = {"model_type": "t5", "d_model": 8, "d_kv": 4, "num_heads": 2, "d_ff": 8, "num_layers": 1}
    build_model(shape, tokenizer, seed=3).save_pretrained(folder / "teacher")
    tokenizer.save_pretrained(folder / "teacher")
    (folder / "run.yaml").write_text(CONFIG.format(teacher=folder / "teacher"))
    return folder / "run.yaml"


@pytest.fixture(scope="module")
def whole(config: Path) -> Path:
    folder = config.parent / "whole"
    assert train("none", config, folder) == 0
    return folder


def assert_ends_as_if_never_killed(point: str, config: Path, whole: Path, folder: Path) -> None:
    assert train(point, config, folder) == -signal.SIGKILL
    assert not (folder / "evaluation.json").exists()
    assert train("none", config, folder) == 0
    for name in ("model", "checkpoint-5"):
        mine, theirs = (path / name / "model.safetensors" for path in (folder, whole))
        assert mine.read_bytes() == theirs.read_bytes()
    assert sorted(p.name for p in folder.glob("*checkpoint*")) == ["checkpoint-4", "checkpoint-5"]
    assert not (folder / ".saving").exists()
    for name, table in tables(whole).items():
        pd.testing.assert_frame_equal(tables(folder)[name], table, check_exact=True)


@pytest.mark.parametrize("point", QUICK)
def test_a_killed_run_ends_as_if_nothing_had_happened(point: str, config: Path, whole: Path, tmp_path: Path) -> None:
    assert_ends_as_if_never_killed(point, config, whole, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("point", SLOW)
def test_killed_anywhere(point: str, config: Path, whole: Path, tmp_path: Path) -> None:
    assert_ends_as_if_never_killed(point, config, whole, tmp_path / "run")
