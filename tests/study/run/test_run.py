"""Runs and studies: resuming, refusing, and the folder they leave."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest

import kvar
from kvar.commands.main import main
from kvar.study.grid.run_grid import cells_of, read_study
from kvar.study.settings.field_values import from_words
from kvar.study.settings.reading import config_names, read_settings, settings_from
from tests.study.run.killed import killed

STUDY = """
common:
  task: arithmetic
  min_problem_steps: 1
  max_problem_steps: 1
  teacher: {teacher}
  train_limit: 64
  max_new_tokens: 16
  eval_limit: 4
  report_to: none
  use_cpu: true
  disable_tqdm: true
  per_device_train_batch_size: 8
  save_steps: 2
  logging_steps: 2
  probe_prompts: 4
  probe_rollouts: 2
  probe_kernels: K=1, K=2, immediate, K=1 - leave-one-out
students:
  small: {{model_type: t5, d_model: 8, d_kv: 4, num_heads: 2, d_ff: 8, num_layers: 1, num_decoder_layers: 1}}
  large: {{model_type: t5, d_model: 16, d_kv: 4, num_heads: 2, d_ff: 8, num_layers: 1, num_decoder_layers: 1}}
stages:
  - {{name: start, objective: kl, num_train_epochs: 0.25}}
  - {{name: ketchup, from: start, objective: ketchup, kernel: K=2, max_steps: 4, probe_every: 2}}
"""


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from kvar.distill import build_model
    from kvar.tasks import ArithmeticTask

    folder = tmp_path_factory.mktemp("teacher")
    tokenizer = ArithmeticTask(1, 1).build_tokenizer()
    config = {"model_type": "t5", "d_model": 16, "d_kv": 8, "num_heads": 2, "d_ff": 16, "num_layers": 1}
    build_model(config, tokenizer, seed=3).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, teacher: Path) -> Path:
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.yaml").write_text(STUDY.format(teacher=teacher))
    assert main(["study", str(folder / "study.yaml"), "--output", str(folder / "out")]) == 0
    return folder


def test_a_study_leaves_whole_runs(study: Path) -> None:
    for student in ("small", "large"):
        run = kvar.load(study / "out" / student / "ketchup")
        assert sorted(run.gradients["step"].unique()) == [0, 2, 4]
        assert {"loss", "total_gap", "response_length", "exact_answer"} <= set(run.metrics["name"].astype(str))
        final = run.metrics[run.metrics["name"] == "exact_answer"]
        assert final["step"].tolist() == [4]  # the step training ended at
        assert run.config["kernel"] == "K=2" and run.config["parameters"] > 100
        assert (run.path / "model" / "model.safetensors").exists()


def test_the_final_score_is_recorded_at_the_last_step_of_an_epoch_run(study: Path) -> None:
    metrics = kvar.load(study / "out" / "small" / "start").metrics
    assert metrics[metrics["name"] == "exact_answer"]["step"].tolist() == [2]  # a quarter of 64 examples in eights


def test_a_finished_study_is_not_run_again(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {p: p.stat().st_mtime_ns for p in (study / "out").rglob("*.parquet")}
    assert main(["study", str(study / "study.yaml"), "--output", str(study / "out")]) == 0
    assert capsys.readouterr().out.count("already finished") == 4
    assert {p: p.stat().st_mtime_ns for p in (study / "out").rglob("*.parquet")} == before


def test_another_runs_folder_is_refused(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["study", str(study / "study.yaml"), "--output", str(study / "out"), "--learning_rate", "0.5"]
    assert main([*words, "--only", "small/start"]) == 2
    error = capsys.readouterr().err
    assert "already holds another run" in error and "learning_rate is" in error


def test_report_of_a_study(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(study / "out"), "--output", str(study / "report")]) == 0
    assert "K=2" in capsys.readouterr().out
    page = (study / "report" / "report.html").read_text()
    assert "data:image" in page and "default-src 'none'" in html.unescape(page)  # the page's policy: nothing is fetched
    outside = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert "://" not in outside.replace("http://www.w3.org", "")
    for name in ("variance_against_k", "bias_against_variance"):
        for kind in ("png", "svg"):
            assert (study / "report" / "figures" / f"{name}.{kind}").stat().st_size > 1000


def test_a_killed_run_goes_on_and_repeats_no_record(study: Path, tmp_path: Path, teacher: Path) -> None:
    """The run stops after step 3, that is after the checkpoint of step 2 and before the end."""
    from kvar.study.run.run import train_run

    values = {**cells_of(read_study(str(study / "study.yaml")), ["small/ketchup"])[0].values}
    values.update(student=str(study / "out/small/start/model"), output_dir=str(tmp_path / "run"))

    with killed("on_step_end", 3):
        train_run(*settings_from(values, "test"))
    train_run(*settings_from(values, "test"))
    resumed, whole = kvar.load(tmp_path / "run"), kvar.load(study / "out/small/ketchup")
    assert resumed.gradients.drop(columns=[]).equals(whole.gradients)
    assert resumed.trajectories.equals(whole.trajectories)
    one, two = (p / "model" / "model.safetensors" for p in (resumed.path, whole.path))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "nowhere"], "config 'nowhere' is neither a file nor one of: "),
        (["train", "arithmetic-teacher", "--learning_rte", "1"], "did you mean 'learning_rate'?"),
        (["train", "arithmetic-teacher", "--student", "x"], "student and student_config are both set"),
        (["report", "nowhere", "--output", "x"], "nowhere is not a folder"),
        (["study", "demo", "--output", "x", "--only", "huge"], "only 'huge' names no cell"),
    ],
)
def test_bad_input_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_studies_are_checked(tmp_path: Path) -> None:
    for text, message in (
        ("students: {a: {}}", "stages is missing or empty"),
        ("grid: 1", "unknown key 'grid'"),
        ("students: {a: {}}\nstages: [{name: x}, {name: x}]", "its own name; got 'x'"),
        ("students: {a: {}}\nstages: [{name: x, from: y}]", "starts from 'y', which is not an earlier stage"),
        ("[1]", "must hold fields and values"),
    ):
        path = tmp_path / "study.yaml"
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_study(str(path))


def test_shipped_configs_are_whole() -> None:
    assert {"demo", "arithmetic-teacher", "multi30k-teacher"} <= set(config_names())
    settings, training = read_settings("arithmetic-teacher", {"max_steps": 7})
    assert settings.models.student_config["model_type"] == "t5" and training.max_steps == 7
    assert training.learning_rate == 1e-2 and training.scale_learning_rate


def test_evaluation_file_holds_samples(study: Path) -> None:
    content = json.loads((study / "out/small/ketchup/evaluation.json").read_text())
    assert content["examples"] == 4 and len(content["samples"]) == 4 and "exact_answer" in content["metrics"]


def test_a_students_config_can_be_given_on_the_command_line(tmp_path: Path) -> None:
    at = ["--output_dir", str(tmp_path), "--use_cpu", "true"]
    for words in (["--student_config", "{model_type: gpt2}"], ["--student_config={model_type: gpt2}"]):
        settings, _ = read_settings("arithmetic-teacher", from_words([*words, *at]))
        assert settings.models.student_config == {"model_type": "gpt2"}
    with pytest.raises(ValueError, match="--student_config cannot be read as YAML: .*line 1"):
        from_words(["--student_config", "{a: ", *at])
    with pytest.raises(ValueError, match="student_config must be a mapping"):
        read_settings("arithmetic-teacher", from_words(["--student_config", "gpt2", *at]))
