"""Ctrl-C: one line that says what is kept and how to go on, exit status 130, and the same command does go on."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvar.commands.main import main
from kvar.distill import DistillationTrainer
from kvar.study.run.interrupted import InterruptedRunError, interrupted_run

RUN = """
task: arithmetic
objective: sft
train_limit: 8
max_steps: 4
save_steps: 2
eval_limit: 0
use_cpu: true
report_to: none
disable_tqdm: true
"""
SIZES = "{model_type: t5, d_model: 8, d_kv: 4, num_heads: 2, d_ff: 8, num_layers: 1}"


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Press Ctrl-C before a given step's loss, once; shells start background jobs with the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def press(step: int) -> None:
        compute, pressed = DistillationTrainer.compute_loss, []

        def loss(self: Any, *arguments: Any, **options: Any) -> Any:
            if self.state.global_step == step and not pressed:
                pressed.append(step)
                signal.raise_signal(signal.SIGINT)
            return compute(self, *arguments, **options)

        monkeypatch.setattr(DistillationTrainer, "compute_loss", loss)

    yield press
    signal.signal(signal.SIGINT, before)


def test_an_interrupted_training_says_what_it_keeps_and_goes_on(
    tmp_path: Path, interrupt: Any, capfd: pytest.CaptureFixture
) -> None:
    (tmp_path / "run.yaml").write_text(f"{RUN}student_config: {SIZES}\n")
    words = ["train", str(tmp_path / "run.yaml"), "--output_dir", str(tmp_path / "run")]
    for step, kept in (
        (1, "has no checkpoint yet; the same command starts again"),
        (3, "keeps checkpoint-2 and the rec"),
    ):
        interrupt(step)
        assert main(words) == 130
        said = capfd.readouterr().err
        assert "Traceback" not in said
        assert said.splitlines()[-1].startswith(f"kvar: interrupted; {tmp_path / 'run'} {kept}")
    assert main(words) == 0
    assert "resuming from" in capfd.readouterr().out
    assert json.loads((tmp_path / "run/checkpoint-4/trainer_state.json").read_text())["global_step"] == 4


def test_an_interrupted_study_says_what_it_keeps(tmp_path: Path, interrupt: Any, capfd: pytest.CaptureFixture) -> None:
    fields = "".join(f"  {line}\n" for line in RUN.split("\n"))
    (tmp_path / "study.yaml").write_text(
        f"common:\n{fields}students: {{a: {SIZES}}}\nmethods: {{x: {{}}, y: {{seed: 5}}}}\n"
    )
    words = ["study", str(tmp_path / "study.yaml"), "--output", str(tmp_path / "out")]
    interrupt(1)
    assert main(words) == 130
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith(f"kvar: interrupted; {tmp_path / 'out'} keeps its finished cells and the ")
    assert not (tmp_path / "out/a/y").exists()  # no other cell is begun


def test_after_training_the_student_is_kept(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with (
        pytest.raises(InterruptedRunError, match="keeps its trained student; run the same command again to score it"),
        interrupted_run(tmp_path),
    ):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("words", "target", "said"),
    [
        (
            ["report", "x", "--output", "y"],
            "kvar.records.study_folder.is_grid",
            "parts of the new report may be missing",
        ),
        (
            ["evaluate", "x"],
            "kvar.study.evaluation.target.find_target",
            "results printed as written are kept",
        ),
        (["choose-k", "x"], "kvar.records.load", "nothing was written; run the same command again"),
        (
            ["judge", "x", "y", "--judge", "z"],
            "kvar.study.evaluation.judge_runs.judge_runs",
            "verdicts so far are kept",
        ),
    ],
)
def test_other_commands(
    words: list[str], target: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def pressed(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(target, pressed)
    assert main(words) == 130
    assert capsys.readouterr().err.startswith(f"kvar: interrupted; {said}")
