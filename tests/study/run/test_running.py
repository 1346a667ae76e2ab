"""Checkpoints, cards, checks before long work, help: what a user of ``kvar train`` meets."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from inspect import signature
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import Trainer

import kvar
from kvar.commands.main import main
from kvar.distill.trainer.checkpoints import LEANED_ON, CheckpointError, WholeCheckpoints, last_checkpoint, step_of
from kvar.study.run.run import train_run
from kvar.study.settings.reading import settings_from

VALUES = {
    "task": "arithmetic", "min_problem_steps": 1, "max_problem_steps": 1, "objective": "sft", "train_limit": 16,
    "student_config": {"model_type": "t5", "d_model": 8, "d_kv": 4, "num_heads": 2, "d_ff": 8, "num_layers": 1},
    "max_steps": 4, "save_steps": 2, "logging_steps": 1, "per_device_train_batch_size": 4, "eval_limit": 2,
    "max_new_tokens": 8, "use_cpu": True, "disable_tqdm": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("running") / "run"
    train_run(*settings_from({**VALUES, "output_dir": str(folder)}, "test"))
    return folder


def test_anyone_opens_model_and_checkpoint(run: Path) -> None:
    from huggingface_hub import ModelCard
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    for name in ("model", "checkpoint-2", "checkpoint-4"):
        model = AutoModelForSeq2SeqLM.from_pretrained(run / name)
        tokenizer = AutoTokenizer.from_pretrained(run / name)
        assert model.generation_config.eos_token_id in (tokenizer.eos_token_id, [tokenizer.eos_token_id])
        card = ModelCard.load(run / name / "README.md")
        assert card.data.library_name == "transformers" and "| objective | sft |" in card.text
    final = ModelCard.load(run / "model" / "README.md")
    scores = json.loads((run / "evaluation.json").read_text())["metrics"]
    assert {r.metric_type: r.metric_value for r in final.data.eval_results} == scores


def test_tensorboard_is_in_the_run_and_speed_in_the_records(run: Path) -> None:
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))
    metrics = kvar.load(run).metrics
    speed = metrics[metrics["name"] == "tokens_per_second"]
    assert speed["step"].tolist() == [1, 2, 3, 4] and (speed["value"] > 0).all()


def test_a_probes_numbers_are_logged_unless_switched_off(run: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    changes = {"objective": "ketchup", "teacher": "arithmetic", "probe_every": 1, "probe_prompts": 3, "max_steps": 2}
    changes |= {"probe_kernels": "K=1, K=4", "eval_limit": 0}
    for name, on in (("on", True), ("off", False)):
        values = {**VALUES, **changes, "probe_log": on, "output_dir": str(tmp_path / name)}
        train_run(*settings_from(values, "test"))
        events = EventAccumulator(str(tmp_path / name / "tensorboard"))
        events.Reload()
        assert ("train/kvar/snr/K4" in events.Tags()["scalars"]) is on
        state = json.loads((tmp_path / name / "checkpoint-2" / "trainer_state.json").read_text())
        assert [e["step"] for e in state["log_history"] if "kvar/seconds" in e] == ([0, 1, 2] if on else [])
        assert "kvar/" not in (tmp_path / name / "checkpoint-2" / "README.md").read_text().partition("Last logged")[2]
        if on:
            assert [event.step for event in events.Scalars("train/kvar/snr/K4")] == [0, 1, 2]
            assert len(list((tmp_path / name / "tensorboard").iterdir())) == 1
            assert not (tmp_path / name / "runs").exists()
    on, off = (kvar.load(tmp_path / name) for name in ("on", "off"))
    assert set(on.metrics["name"]) == set(off.metrics["name"]) and len(on.metrics) == len(off.metrics)
    assert on.config == off.config  # a run may be continued with the other setting


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills while the optimizer of checkpoint 4 is written: its weights are there already."""
    folder, save = tmp_path / "run", torch.save

    def full(content: object, path: object, *args: object, **kwargs: object) -> None:
        if "checkpoint-4" in str(path) and "optimizer" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        save(content, path, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(torch, "save", full)
    words = settings_from({**VALUES, "output_dir": str(folder), "report_to": "none"}, "test")
    with pytest.raises(
        CheckpointError, match="checkpoint-2 is complete and unchanged. The disk is full: free some space"
    ):
        train_run(*words)
    assert [p.name for p in folder.glob("*checkpoint*")] == ["checkpoint-2"]
    assert not (folder / ".saving").exists()
    monkeypatch.undo()
    metrics = train_run(*settings_from({**VALUES, "output_dir": str(folder), "report_to": "none"}, "test"))
    assert "exact_answer" in metrics and last_checkpoint(folder) == folder / "checkpoint-4"


def test_a_checkpoint_without_its_state_is_no_checkpoint(tmp_path: Path) -> None:
    for step, state in ((2, '{"global_step": 2}'), (4, '{"global_st'), (6, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-2"


def test_checkpoints_beyond_the_limit_go_oldest_first_but_for_the_best(tmp_path: Path) -> None:
    for step in (2, 4, 10, 12):
        (tmp_path / f"checkpoint-{step}").mkdir()

    def left(limit: int | None, best: str | None) -> list[int]:
        state = SimpleNamespace(best_model_checkpoint=best)
        trainer = SimpleNamespace(args=SimpleNamespace(save_total_limit=limit), state=state)
        WholeCheckpoints._drop_old(trainer, tmp_path)  # type: ignore[arg-type]
        return sorted(step_of(path) for path in tmp_path.iterdir())

    assert left(None, None) == left(0, None) == left(4, None) == [2, 4, 10, 12]
    assert left(3, "elsewhere/checkpoint-2") == [2, 10, 12]
    assert left(1, str(tmp_path / "checkpoint-2")) == [2, 12]
    assert left(1, str(tmp_path / "checkpoint-12")) == [12]


def test_private_methods_of_the_trainer_take_what_is_given_to_them() -> None:
    """These are no public interface of transformers: another version may change them."""
    parameters = {name: list(signature(getattr(Trainer, name)).parameters)[1:] for name in LEANED_ON}
    assert {"model", "trial", "epoch", "ignore_keys_for_eval", "start_time"} <= set(parameters["_run_epoch"])
    assert parameters["_finalize_training"] == ["trial", "num_train_samples", "start_time"]
    assert parameters["_maybe_log_save_evaluate"][:7] == [
        "tr_loss", "grad_norm", "model", "trial", "epoch", "ignore_keys_for_eval", "start_time",
    ]  # fmt: skip
    assert parameters["_get_output_dir"] == ["trial"] and parameters["_save_checkpoint"] == ["model", "trial"]
    assert parameters["_get_grad_norm"] == ["model", "grad_norm"]
    assert parameters["_get_dataloader"][:4] == ["dataset", "description", "batch_size", "sampler_fn"]
    assert parameters["_get_train_sampler"] == ["train_dataset"]
    assert parameters["_get_eval_sampler"] == ["eval_dataset"]
    assert parameters["get_batch_samples"] == ["epoch_iterator", "num_batches", "device"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"report_to": "swanlab"}, "report_to 'swanlab' needs a package that is not installed: pip install swanlab"),
        ({"report_to": "tensorbord"}, "report_to 'tensorbord' is unknown"),
        ({"output_dir": "/proc/self/cmdline/run"}, "which is a file"),
        (
            {"fsdp": True, "fsdp_config": {"version": 1}, "objective": "llmr", "teacher": "arithmetic"},
            "'llmr' samples from the student.*FSDP1 splits it for good. Use FSDP2",
        ),
        ({"torch_compile": True}, "torch_compile is on.*set torch_compile false"),
        ({"resume_from_checkpoint": "nowhere"}, "'nowhere' is not a checkpoint"),
    ],
)
def test_what_cannot_work_is_said_first(
    changes: dict, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib.util import find_spec

    monkeypatch.setattr("kvar.study.run.preflight.find_spec", lambda name: None if name == "wandb" else find_spec(name))
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "no")  # written by torch_compile
    values = {**VALUES, "output_dir": str(tmp_path / "run"), **changes}
    with pytest.raises(ValueError, match=message):
        train_run(*settings_from(values, "test"))
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"student_config": {**VALUES["student_config"], "d_model": 16}},
            "of another student: .* has shape .*8",
        ),
        ({"learning_rate": 0.5}, "of another run: its learning_rate is .* 0.5"),
    ],
)
def test_a_checkpoint_of_another_config(changes: dict, message: str, run: Path, tmp_path: Path) -> None:
    values = {**VALUES, "output_dir": str(tmp_path / "run"), "resume_from_checkpoint": str(run / "checkpoint-2")}
    with pytest.raises(ValueError, match=message):
        train_run(*settings_from({**values, **changes}, "test"))


def test_a_disk_too_small_for_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")(1, 1, 1000)
    monkeypatch.setattr("kvar.study.run.preflight.shutil.disk_usage", lambda path: usage)
    with pytest.raises(ValueError, match="has 0 MB free; a checkpoint of"):
        train_run(*settings_from({**VALUES, "output_dir": str(tmp_path / "run")}, "test"))


def test_help_shows_every_field_with_the_configs_values(capsys: pytest.CaptureFixture[str]) -> None:
    from dataclasses import fields

    from kvar.distill import DistillationConfig
    from kvar.study.settings.run_settings import SECTIONS

    assert main(["train", "arithmetic-teacher", "--max_steps", "7", "--help"]) == 0
    page = capsys.readouterr().out
    for kind in (*SECTIONS, DistillationConfig):
        for field in fields(kind):
            assert f"  --{field.name} " in page or not field.init
    assert "--learning_rate FLOAT  [0.01]" in page and "--max_steps INT  [7]" in page
    assert main(["study", "demo", "--help"]) == 0
    page = capsys.readouterr().out
    assert "students: 50k, 90k-early, 200k" in page and "--only" in page


def test_plain_help_imports_nothing_heavy() -> None:
    code = "import sys; from kvar.commands.main import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print([m for m in ('torch', 'transformers', 'pandas') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]" and "choose-k" in out


def test_probe_and_choose_k(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["probe", str(run), "--checkpoints", "all", "--output", str(tmp_path / "probe"), "--teacher", "arithmetic"]
    words += ["--probe_prompts", "6", "--probe_rollouts", "2", "--probe_kernels", "K=1,K=2"]
    assert main(words) == 0
    assert sorted(kvar.load(tmp_path / "probe").gradients["step"].unique()) == [2, 4]
    assert main(words) == 0
    assert capsys.readouterr().out.count("already measured") == 2
    assert main(["choose-k", str(tmp_path / "probe"), "--prompts", "8", "--rollouts", "1", "2"]) == 0
    page = capsys.readouterr().out
    assert "steps of 8 prompts x 2 rollouts" in page and "squared error" in page and "K=2" in page
    assert main(["choose-k", str(run)]) == 2
    assert "holds no gradient probe" in capsys.readouterr().err


def test_bf16_trains_and_is_probed_in_fp32(run: Path, tmp_path: Path) -> None:
    """The first probe, before any training, is that of a run in fp32."""
    from kvar.analysis.frames.recorded import probes_of

    changes = {"objective": "ketchup", "teacher": "arithmetic", "probe_every": 2, "probe_prompts": 2, "max_steps": 2}
    changes |= {"probe_kernels": "K=1", "report_to": "none", "eval_limit": 0, "save_strategy": "no"}
    for name, bf16 in (("half", True), ("full", False)):
        values = {**VALUES, **changes, "bf16": bf16, "output_dir": str(tmp_path / name)}
        train_run(*settings_from(values, "test"))
    half, full = (kvar.load(tmp_path / name) for name in ("half", "full"))
    assert [step for _, step in probes_of(half)] == [0, 2]
    first = [run.gradients.query("step == 0").reset_index(drop=True) for run in (half, full)]
    assert first[0].equals(first[1])
    assert not half.gradients.equals(full.gradients)
