"""A study's grid: its cells, their folders, and files that span none."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvar.study.grid.cells import cells_of, read_study

GRID = """
common: {learning_rate: 0.1, teacher: arithmetic}
tasks: {short: {max_problem_steps: 1, learning_rate: 0.2}, long: {}}
students: {small: {model_type: t5, d_model: 8}, layers: {student_layers: every 2}, hub: some/model}
stages: [{name: start, objective: kl}]
methods:
  llmr: &reinforced {from: start, objective: llmr, learning_rate: 0.3}
  K=4: {<<: *reinforced, objective: ketchup, kernel: K=4}
seeds: [0, 1]
"""


def read(tmp_path: Path, text: str) -> dict:
    (tmp_path / "study.yaml").write_text(text)
    return read_study(str(tmp_path / "study.yaml"))


def test_every_combination_is_a_cell(tmp_path: Path) -> None:
    cells = {cell.name: cell for cell in cells_of(read(tmp_path, GRID))}
    assert len(cells) == 2 * 3 * 3 * 2
    cell = cells["short/hub/K=4/seed-1"]
    assert cell.needs == "short/hub/start/seed-1" and cell.start == "start"
    assert cell.values == {  # common, then the task's, then the method's
        "learning_rate": 0.3, "teacher": "arithmetic", "max_problem_steps": 1, "objective": "ketchup", "kernel": "K=4",
        "seed": 1,
    }  # fmt: skip
    assert cells["short/hub/start/seed-0"].values["learning_rate"] == 0.2
    assert cells["long/small/start/seed-0"].values["student_config"] == {"model_type": "t5", "d_model": 8}
    assert cells["long/layers/start/seed-0"].values["student_layers"] == "every 2"
    assert cells["long/hub/start/seed-0"].values["student"] == "some/model"
    names = list(cells)
    assert names.index("long/hub/K=4/seed-0") > names.index("short/hub/K=4/seed-1")
    assert names.index("short/hub/K=4/seed-0") < names.index("short/small/start/seed-1")  # seed by seed


def test_a_method_is_swept(tmp_path: Path) -> None:
    swept = GRID.replace("learning_rate: 0.3}", "sweep: {learning_rate: [1.0e-4, 0.3], top_k: [0, 1]}}")
    cells = {cell.name: cell for cell in cells_of(read(tmp_path, swept), ["long/small/*/seed-0"])}
    values = [f"{rate},{k}" for rate in ("0.0001", "0.3") for k in (0, 1)]
    assert list(cells) == [
        f"long/small/{method}/seed-0"
        for method in ("start", *(f"{name}@{value}" for name in ("llmr", "K=4") for value in values))
    ]
    last = cells["long/small/K=4@0.0001,1/seed-0"]
    assert last.values["learning_rate"] == 1e-4 and last.values["top_k"] == 1 and last.values["kernel"] == "K=4"
    assert last.needs == "long/small/start/seed-0" and "sweep" not in last.values
    for sweep, message in (
        ("{top_k: 1}", "stage 'llmr': sweep must map fields to lists"),
        ("{}", "sweep must map fields to lists"),
        ("{top_k: []}", "sweep must map fields to lists"),
        ("{objective: [kl]}", "sweep has objective, which the stage sets to 'llmr'; keep one of them"),
    ):
        with pytest.raises(ValueError, match=message):
            read(tmp_path, swept.replace("{learning_rate: [1.0e-4, 0.3], top_k: [0, 1]}", sweep))
    with pytest.raises(ValueError, match="needs its own name"):
        read(tmp_path, swept.replace("[0, 1]}}", "[0, 0]}}"))


def test_a_student_brings_fields_of_the_stages_that_make_it(tmp_path: Path) -> None:
    short = "short: {student_config: {model_type: t5}, learning_rate: 0.4}"
    study = read(tmp_path, GRID.replace("hub: some/model", short))
    values = {cell.method: cell.values for cell in cells_of(study, ["short/short/*/seed-0"])}
    assert values["start"]["student_config"] == {"model_type": "t5"} and values["start"]["learning_rate"] == 0.4
    assert values["llmr"]["learning_rate"] == 0.3 and "student_config" not in values["llmr"]
    with pytest.raises(ValueError, match="student 'short' sets seed to 3, but the study has seeds"):
        read(tmp_path, GRID.replace("hub: some/model", short.replace("learning_rate: 0.4", "seed: 3")))


def test_a_stage_of_one_seed_serves_all(tmp_path: Path) -> None:
    study = read(tmp_path, GRID.replace("objective: kl}", "objective: kl, seeds: [5]}"))
    cells = {cell.name: cell for cell in cells_of(study, ["short/small"])}
    assert cells["short/small/llmr/seed-1"].needs == "short/small/start/seed-5"
    assert sorted(cells) == [
        "short/small/K=4/seed-0", "short/small/K=4/seed-1", "short/small/llmr/seed-0", "short/small/llmr/seed-1",
        "short/small/start/seed-5",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "count"),
    [(["short"], 18), (["short/hub"], 6), (["seed-0"], 18), (["K=4"], 12), (["*/hub/K=*/seed-0"], 2),
     (["long/hub/start/seed-1"], 1), (["long/hub/start/seed-1", "short"], 19)],
)  # fmt: skip
def test_only(words: list[str], count: int, tmp_path: Path) -> None:
    assert len(cells_of(read(tmp_path, GRID), words)) == count


def test_only_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"only 'K=5' names no cell; there are: short/small/start/seed-0.* 16 more"):
        cells_of(read(tmp_path, GRID), ["short", "K=5"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds: [0, 1]", "seeds: []", "seeds is empty, so the grid has no cells"),
        ("seeds: [0, 1]", "seeds: [0, 1, 0]", "0 occurs twice"),
        ("seeds: [0, 1]", "seeds: [0, one]", "'one' is not a seed"),
        ("seeds: [0, 1]", "seeds: 3", "must be a list of numbers"),
        ("tasks: {short: {max_problem_steps: 1, learning_rate: 0.2}, long: {}}", "tasks: {}", "tasks is empty"),
        ("tasks: {short", "tasks: {long", "'long' occurs twice, in lines 3 and 3"),
        ("  K=4:", "  llmr:", "'llmr' occurs twice, in lines 7 and 8"),
        ("  K=4:", "  start:", "its own name; got 'start'"),
        ("  K=4:", "  a/b:", "'a/b' cannot name a folder"),
        ("  K=4:", "  ..:", "'..' cannot name a folder"),
        ("{from: start,", "{from: begin,", "'llmr' starts from 'begin', which is not an earlier stage"),
        ("kernel: K=4}", "kernel: K=4, seed: 3}", "'K=4' sets seed to 3, but the study has seeds"),
        ("common: {", "common: {seed: 3, ", "common sets seed to 3"),
        ("common: {", "common: {student: x, ", "common sets student, which students"),
        ("long: {}", "long: {output_dir: x}", "task 'long' sets output_dir"),
        ("objective: kl}", "objective: kl, seeds: [0, 2]}", r"has seeds \[0, 1\], but 'start', .* has \[0, 2\]"),
        ("hub: some/model", "hub: 3", "student 'hub' must be a folder"),
        ("kernel: K=4}", "kernel: K=4, name: x}", "has a field name, 'x'"),
    ],
)
def test_bad_grids(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in GRID
    with pytest.raises(ValueError, match=message) as error:
        read(tmp_path, GRID.replace(old, new, 1))
    assert str(tmp_path / "study.yaml") in str(error.value)


def test_the_shipped_table_is_whole() -> None:
    cells = cells_of(read_study("table"))
    assert len(cells) == 3 * 3 * 13 * 3 and {cell.seed for cell in cells} == {0, 1, 2}
    by_method = {cell.method: cell.values for cell in cells}
    assert {m: v.get("baseline") for m, v in by_method.items() if v.get("baseline")} == {
        "llmr-mean": "batch-mean", "llmr-minimum-variance": "minimum-variance", "llmr-teacher-value": "teacher-value",
    }  # fmt: skip
    later = [cell for cell in cells if cell.method != "start"]
    assert all(cell.needs == f"{cell.task}/{cell.student}/start/seed-{cell.seed}" for cell in later)
