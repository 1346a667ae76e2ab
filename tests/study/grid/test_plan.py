"""A study's plan: checked whole before anything runs, and what it prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kvar.commands.main import main
from kvar.study.grid.folder import check_study_folder, mark_study_folder
from kvar.study.grid.run_grid import cells_of, describe_plan, plan_study

SMALL = {"model_type": "t5", "d_model": 8, "d_kv": 4, "num_heads": 2, "d_ff": 8, "num_layers": 1}
STUDY: dict[str, Any] = {
    "common": {"task": "arithmetic", "use_cpu": True, "report_to": "none", "max_steps": 1},
    "students": {"small": SMALL},
    "stages": [
        {"name": "start", "objective": "sft"},
        {"name": "more", "from": "start", "objective": "sft"},
        {"name": "longer", "from": "start", "objective": "sft", "max_steps": 2},
    ],
    "seeds": [0, 1],
}


def changed(**parts: Any) -> dict[str, Any]:
    return {**STUDY, **parts}


def finish(output: Path, name: str) -> None:
    """What a finished cell is known by."""
    (output / name / "model").mkdir(parents=True)
    (output / name / "evaluation.json").write_text(json.dumps({"metrics": {}}))


def test_the_plan_tells_what_is_done_and_what_waits_for_what(tmp_path: Path) -> None:
    finish(tmp_path, "small/start/seed-0")
    planned = plan_study(STUDY, tmp_path, overrides={"learning_rate": 0.5})
    assert [item.state for item in planned] == ["done", *["to run"] * 5]
    assert planned[1].values["student"] == str(tmp_path / "small/start/seed-0/model")
    assert {item.values["learning_rate"] for item in planned} == {0.5}
    lines = describe_plan(planned).splitlines()
    assert lines[0] == "done    small/start/seed-0"
    assert lines[1].split() == ["to", "run", "small/more/seed-0", "from", "small/start/seed-0"]
    assert lines[-1].startswith("6 cells: 1 done, 0 begun, 5 to run.")
    assert not (tmp_path / "study.json").exists()


def test_models_that_are_not_there_are_named(tmp_path: Path) -> None:
    study = changed(common={**STUDY["common"], "teacher": "runs/no/where/model", "tokenizer": "some/hub-name"})
    text = describe_plan(plan_study(study, tmp_path))
    assert "teacher runs/no/where/model: does not exist yet" in text
    assert "tokenizer some/hub-name: not a folder; a hub name" in text
    assert "small/start/seed-0/model" not in text  # the study makes it


@pytest.mark.parametrize(
    ("parts", "options", "message"),
    [
        ({"stages": [*STUDY["stages"], {"name": "x", "objective": "sfd"}]}, {}, "objective.*sfd"),
        ({"stages": [*STUDY["stages"], {"name": "x", "kernl": "K=1"}]}, {}, "cell small/x/seed-0: unknown field"),
        ({"stages": [*STUDY["stages"], {"name": "x", "task": "text"}]}, {}, "small/x/seed-0: task 'text' needs data"),
        ({"stages": [*STUDY["stages"], {"name": "again", "from": "start", "objective": "sft"}]}, {},
         "small/more/seed-0 and small/again/seed-0 are the same run"),
        ({"students": {"small": SMALL, "twin": SMALL}}, {}, "small/start/seed-0 and twin/start/seed-0 are the same"),
        ({"students": {"small": {**SMALL, "model_type": "t55"}}}, {}, "small/start/seed-0: student_config.*t55"),
        ({"students": {"small": {"d_model": 8}}}, {}, "must name a model_type"),
        ({}, {"only": ["more"]}, "starts from small/start/seed-0, which has not run in .*; add .* to --only"),
        ({}, {"overrides": {"seed": 3}}, r"seed is 3, but the study has seeds \[0, 1\]"),
        ({}, {"overrides": {"output_dir": "x"}}, "--output"),
        ({}, {"overrides": {"data": "./none", "task": "translation", "source_field": "a", "target_field": "b"}},
         r"data './none' is not a folder"),
    ],
)  # fmt: skip
def test_bad_cells_are_found_before_any_runs(parts: dict, options: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        plan_study(changed(**parts), tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_another_study_is_refused(tmp_path: Path) -> None:
    mark_study_folder(tmp_path, cells_of(STUDY))
    check_study_folder(tmp_path, cells_of(changed(seeds=[0, 1, 2])))  # more seeds
    check_study_folder(tmp_path, cells_of(changed(stages=STUDY["stages"][:1])))  # fewer stages
    with pytest.raises(ValueError, match="another study: its cells are small/start/seed-0.*not large"):
        check_study_folder(tmp_path, cells_of(changed(students={"large": SMALL})))
    other = cells_of(changed(common={**STUDY["common"], "max_steps": 5}, stages=STUDY["stages"][:1]))
    with pytest.raises(ValueError, match="small/start/seed-0, max_steps is 1, not 5"):
        check_study_folder(tmp_path, other)
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(ValueError, match=r"study\.json is not what kvar study writes"):
        check_study_folder(tmp_path, cells_of(STUDY))


def test_a_runs_folder_or_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="holds a single run"):
        check_study_folder(tmp_path, cells_of(STUDY))
    with pytest.raises(ValueError, match="is a file"):
        check_study_folder(tmp_path / "config.json", cells_of(STUDY))


def test_dry_run_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["study", "table", "--output", str(tmp_path / "out"), "--dry-run"]
    assert main([*words, "--only", "arithmetic/small", "--use_cpu", "true"]) == 0
    out = capsys.readouterr().out
    assert "39 cells: 0 done, 0 begun, 39 to run" in out and not (tmp_path / "out").exists()
    assert main([*words, "--only", "arithmetic/small/start", "--learning_rte", "1"]) == 2
    assert "did you mean 'learning_rate'" in capsys.readouterr().err
