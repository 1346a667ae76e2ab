"""Every config that ships with kvar parses to settings and says what its data, task and models need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kvar.study.grid.run_grid import cells_of, read_study
from kvar.study.run.tasks import build_task
from kvar.study.settings.reading import config_names, find_config, is_study, load_yaml, settings_from
from tests.data import DATA, needs_data

STUDIES = [name for name in config_names() if is_study(load_yaml(find_config(name)))]
RUNS = [name for name in config_names() if name not in STUDIES]


def cells(name: str) -> list[tuple[str, Any, Any]]:
    """Every run of a config, of a study those of its first seed, on this machine's CPU, with its settings."""
    if name in RUNS:
        planned = [(name, load_yaml(find_config(name)))]
    else:
        first = [c for c in cells_of(read_study(name)) if not c.seed]
        planned = [(c.name, dict(c.values) | ({"student": "start"} if c.start else {})) for c in first]
    return [(label, *settings_from({**values, "use_cpu": True}, label)) for label, values in planned]


@pytest.mark.parametrize("name", config_names())
def test_every_preset_is_whole(name: str) -> None:
    for label, settings, training in cells(name):
        task, data = build_task(settings.task), settings.task
        assert task.name == data.task, label
        if data.data is not None and data.task != "gsm8k":
            assert data.source_field and data.target_field, label
        assert training.max_new_tokens >= 16, label
        if settings.evaluation.calculator:
            assert task.calculator_marks == tuple(data.calculator_marks.split())
        if settings.probe.probe_every:
            assert settings.models.teacher, label


PAPER = {
    "xsum": ("summarisation", "summarize: "),
    "europarl-ennl": ("translation", "translate English to Dutch: "),
    "gsm8k": ("gsm8k", ""),
}
RECIPE = {"learning_rate": 1e-5, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 8,
          "importance_weight": "policy", "return_clip": 50.0, "normalisation": "sequence-token-mean",
          "centre": "mean", "value": "max", "temperature": 1.0, "top_k": 0}  # fmt: skip


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_table(name: str) -> None:
    kind, prefix = PAPER[name]
    assert {cell.seed for cell in cells_of(read_study(name))} == {0, 1, 2}
    runs = cells(name)
    assert len(runs) == 3 * 13
    assert {build_task(s.task).prefix for _, s, _ in runs} == {prefix} and {s.task.task for _, s, _ in runs} == {kind}
    assert {(s.models.teacher, s.task.truncate_prompts, t.max_new_tokens) for _, s, t in runs} == {
        ("google/flan-t5-xl", 512, 512)
    }
    given = [
        (s.models.student, t.objective, t.learning_rate, t.num_train_epochs)
        for _, s, t in runs
        if s.models.student != "start"
    ]
    sizes = [f"google/flan-t5-{size}" for size in ("small", "base", "large")]
    assert given == [(size, objective, 1e-4, 5) for size in sizes for objective in ("kl", "seqkd", "js", "tvd")]
    later = [t for _, s, t in runs if s.models.student == "start"]
    assert len(later) == 3 * 9
    assert [(t.objective, t.kernel, t.baseline) for t in later[:9]] == [
        ("llmr", later[0].kernel, None), ("llmr", later[0].kernel, "batch-mean"),
        ("llmr", later[0].kernel, "minimum-variance"), ("llmr", later[0].kernel, "teacher-value"),
        *(("ketchup", kernel, None) for kernel in ("K=2", "K=4", "K=8", "K=16", "immediate")),
    ]  # fmt: skip
    for t in later:  # the released recipe, but for baseline and kernel
        assert {field: getattr(t, field) for field in RECIPE} == RECIPE
    assert {s.evaluation.eval_split for _, s, _ in runs} == {"validation"}


def test_the_papers_fields_are_those_of_the_preset() -> None:
    (cell,) = cells_of(read_study("xsum"), ["small/K=4/seed-0"])
    written = {name for name in RECIPE if name in cell.values}
    rest = {name: value for name, value in cell.values.items() if name not in written}
    _, preset = settings_from({**rest, "student": "start", "use_cpu": True, "preset": "reference"}, "preset")
    assert {field: getattr(preset, field) for field in RECIPE} == RECIPE


@pytest.mark.parametrize("name", PAPER)
def test_a_dry_run_of_the_papers_study_needs_no_network(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    from kvar.commands.main import main

    def refuse(*arguments: Any) -> None:
        raise AssertionError("a dry run opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    words = ["--dry-run", "--use_cpu", "true", "--only", "base/*/seed-0"]
    assert main(["study", name, "--output", str(tmp_path / "out"), *words]) == 0
    out = capsys.readouterr().out
    assert "13 cells: 0 done, 0 begun, 13 to run" in out
    assert "student google/flan-t5-base: not a folder; a hub name" in out
    assert "teacher google/flan-t5-xl: not a folder; a hub name" in out
    assert not (tmp_path / "out").exists()


def test_europarl_reads_nested_fields_of_its_subset() -> None:
    _, settings, _ = cells("europarl-ennl")[0]
    task = settings.task
    assert (task.data_subset, task.source_field) == ("en-nl", "translation.en")
    assert (task.held_out, task.held_out_test) == (2000, 2000)


@needs_data
@pytest.mark.parametrize(
    ("name", "folder"),
    [("multi30k-teacher", "multi30k"), ("multi30k", "multi30k"), ("table", "multi30k"), ("gsm8k", "gsm8k"),
     ("gsm8k-short-teacher", "gsm8k"), ("smollm2-gsm8k-short", "gsm8k"),
     ("debian-synopsis-teacher", "debian-synopsis")],
)  # fmt: skip
def test_presets_read_the_data_by_a_local_folder(name: str, folder: str) -> None:
    from dataclasses import replace

    _, settings, _ = cells(name)[0]
    task = build_task(replace(settings.task, data=str(DATA / folder), data_subset=None))
    train, validation = task.examples("train", 3), task.examples("validation", 3)
    assert len(train) == 3 == len(validation) and all(e.target for e in train)
    if name == "gsm8k":
        assert "[[48/2=24]]24 clips" in train[0].target


def test_a_local_path_that_is_not_there_says_what_to_give(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from kvar.commands.main import main

    assert main(["train", "debian-synopsis-teacher", "--output_dir", str(tmp_path / "run")]) == 2
    assert (
        "data './debian-synopsis' is not a folder. Give a folder with train/validation/test" in capsys.readouterr().err
    )


def test_long_prompts_are_cut_for_training_and_evaluation_alike(tmp_path: Path) -> None:
    from kvar.study.run.tasks import fit_task
    from kvar.tasks import SummarisationTask

    rows = [json.dumps({"d": " ".join(f"word{i}" for i in range(n)), "s": "short"}) for n in (3, 200, 40)]
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    _, settings, _ = cells("debian-synopsis-teacher")[0]
    task = SummarisationTask(str(tmp_path), "d", "s", vocabulary=300)
    tokenizer = task.build_tokenizer()
    settings.task.truncate_prompts = 24
    cut = fit_task(settings.task, task, tokenizer)
    whole, short = task.examples("train"), cut.examples("train")
    assert short[0] == whole[0]
    for before, after in zip(whole[1:], short[1:], strict=True):
        assert len(tokenizer(after.prompt)["input_ids"]) == 24 and after.prompt.startswith("summarize: word0")
        assert before.prompt.startswith(after.prompt) and after.target == before.target
    settings.task.truncate_prompts = 0
    with pytest.raises(ValueError, match="truncate_prompts must leave room for text: more than 0; got 0"):
        fit_task(settings.task, task, tokenizer)


def test_which_score_is_the_reward_is_settled_before_models_are_loaded() -> None:
    from kvar.study.run.tasks import build_task, fit_task
    from kvar.study.settings.run_settings import TaskSettings
    from kvar.tasks import Example

    pair = ["#### 3"], [Example("", "Monday<<1+2=3>>3 #### 3")]
    assert build_task(TaskSettings()).example_scores(*pair) == [0.5]
    settings = TaskSettings(reward_score="exact_answer", truncate_prompts=30)
    task = build_task(settings)
    assert task.example_scores(*pair) == fit_task(settings, task, task.build_tokenizer()).example_scores(*pair) == [1.0]
    with pytest.raises(ValueError, match="score 'bleu' is unknown for this task; choose one of: partial_credit, exact"):
        build_task(TaskSettings(reward_score="bleu"))


def test_a_calculator_needs_marks_that_can_be_written() -> None:
    from kvar.study.run.tasks import check_calculator
    from kvar.study.settings.run_settings import TaskSettings
    from kvar.tasks import ArithmeticTask, TextTask

    tokenizer = ArithmeticTask().build_tokenizer()
    check_calculator(ArithmeticTask(), tokenizer)
    with pytest.raises(ValueError, match="calculator is true but task 'text' has no calculation marks"):
        check_calculator(TextTask("unused", "a", "b"), tokenizer)
    with pytest.raises(ValueError, match="calculator_marks must be two marks with a blank between them"):
        build_task(TaskSettings("gsm8k", data="unused", calculator_marks="[["))
