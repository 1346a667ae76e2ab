"""``kvar report STUDY``: the whole of it on tiny studies, and what it says of gaps in them."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from kvar.commands.main import main
from kvar.report.by_method import report_study
from kvar.results.study_cells import study_cells
from kvar.results.teachers import teacher_scores
from tests.report.study_folders import SAMPLES, write_study
from tests.report.test_html import Page

ORDER = {"start": 0.0, "kl": 1.0, "llmr": 2.0, "llmr-mean": 3.0, "K=2": 4.0, "K=4": 5.0, "immediate": 6.0}


def teacher(path, **fields):
    content = {"split": "test", "examples": 3, "metrics": {"bleu": 40.0}, "samples": SAMPLES, **fields}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    study = write_study(
        folder / "study",
        lambda task, student, method, seed: 10 * seed + ORDER[method],
        gap=lambda task, student, method, seed: 100 + seed - 2 * ORDER[method],
        students={"small": 1_000},
        seeds=(0, 1),
        missing=["sums/small/K=4/seed-1"],
    )
    teacher(study / "sums" / "teacher.json", intervals={"bleu": {"low": 38.0, "high": 42.0}})
    said = []
    text = report_study(study, folder / "out", say=said.append)
    return study, folder / "out", text, said


def test_everything_is_written_and_progress_said(reported):
    _, out, _, said = reported
    there = {path.name for path in out.iterdir()}
    assert there == {
        "methods.md", "methods.csv", "ranks.csv", "statistics.parquet", "outcomes.parquet", "curves.parquet",
        "made-with.json", "report.html", "figures",
    }  # fmt: skip
    assert said == ["read 13 of 13 finished cells (14 planned)", "drawing"]
    drawn = {path.stem for path in (out / "figures").glob("*.png")}
    assert drawn == {path.stem for path in (out / "figures").glob("*.svg")}
    assert {"J_against_trace", "score_against_trace", "kernels_at_start", "kernels_after", "curves_total_gap"} <= drawn


def test_the_table_says_what_was_measured_and_what_is_missing(reported):
    _, out, text, _ = reported
    lines = text.splitlines()
    rows = {line.split("|")[1].strip(): line.split("|")[2].strip() for line in lines if line.startswith("|")}
    assert rows["teacher"] == "40.00 ± 2.00"
    assert rows["K=4"] == "5.00 (n=1)"
    assert rows["immediate"].startswith("**11.00 ± ")  # every paired difference is exact, so nothing ties with it
    assert [name for name, cell in rows.items() if cell.startswith("**")] == ["immediate"]
    assert "13 of 14 cells are finished, of 1 tasks, 1 students, 7 methods with their start, and 2 seeds." in text
    assert "Against start, score is resolved better for 5 and worse for 0 of 5 (method, student, task) triples." in text
    assert "Against llmr, J is resolved better for 3 and worse for 1 of 4 (method, student, task) triples." in text
    whole = (out / "methods.md").read_text(encoding="utf-8")
    assert "1 of 14 cells are not finished (failed, running or waiting): sums/small/K=4/seed-1." in whole
    assert "their own probe at the end did not measure: llmr-mean (K=1 - batch-mean)." in whole
    assert "No probe at their end, so no J: kl;" in whole
    assert "## Total gap, less that of llmr" in whole and "## Estimators" in whole
    assert "## Gap per token, less that of llmr" in whole


def test_numbers_on_disk_are_those_of_every_seed(reported):
    _, out, _, _ = reported
    frame = pd.read_csv(out / "methods.csv").set_index("method")
    assert frame.loc["K=2", ["planned", "seeds", "bleu", "bleu_less_llmr"]].tolist() == [2, 2, 9.0, 2.0]
    assert pd.isna(frame.loc["K=4", "bleu_low"]) and pd.isna(frame.loc["kl", "total_gap"])
    outcomes = pd.read_parquet(out / "outcomes.parquet")
    own = outcomes[(outcomes["method"] == "K=2") & (outcomes["outcome"] == "total_gap")]
    assert sorted(own["value"]) == [92.0, 93.0]
    statistics = pd.read_parquet(out / "statistics.parquet")
    assert {"task", "student", "method", "seed", "statistic", "value", "low", "high"} <= set(statistics.columns)
    assert set(statistics["method"]) == {"start", "llmr", "llmr-mean", "K=2", "K=4", "immediate"}


def test_the_page_nests_and_marks_the_best(reported):
    _, out, _, _ = reported
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<strong>11</strong>" in page and "<h2>Noise at the start against gain</h2>" in page
    assert Page(page).all("h2")


def test_runs_without_probes_and_one_seed_are_reported_with_blanks(tmp_path):
    study = write_study(
        tmp_path / "study", lambda *key: 3.0, students={"small": 1_000}, methods=("start", "kl", "llmr"),
        missing=[f"sums/small/{m}/seed-1" for m in ("start", "kl", "llmr")], seeds=(0, 1), probes=False,
    )  # fmt: skip
    text = report_study(study, tmp_path / "out", say=lambda _: None)
    assert "| llmr | 3.000 (n=1) |" in text.replace("3.00 (", "3.000 (")
    assert "resolved" not in text and "**" not in text
    whole = (tmp_path / "out" / "methods.md").read_text(encoding="utf-8")
    assert "Not drawn: Which K points best, by student" in whole and "## Estimators" not in whole
    assert {path.stem for path in (tmp_path / "out" / "figures").glob("*.png")} >= {"curves_loss_given"}


def test_a_teacher_on_other_examples_is_never_taken(reported, tmp_path):
    study = reported[0]
    cells = study_cells(study)
    found, said = teacher_scores(study, cells)
    assert (found["sums"]["bleu"].value, found["sums"]["bleu"].low) == (40.0, 38.0)
    where = study / "sums" / "teacher.json"
    (line,) = said
    assert line.startswith("sums: ") and str(where) in line
    other = teacher(tmp_path / "a.json", samples=[{**SAMPLES[0], "prompt": "another"}])
    with pytest.raises(ValueError, match=r"a\.json is of other examples"):
        teacher_scores(study, cells, {"sums": other})
    with pytest.raises(ValueError, match="has split 'validation', the students 'test'"):
        teacher_scores(study, cells, {"sums": teacher(tmp_path / "b.json", split="validation")})
    with pytest.raises(ValueError, match="has examples 9, the students 3"):
        teacher_scores(study, cells, {"sums": teacher(tmp_path / "c.json", examples=9)})
    with pytest.raises(ValueError, match="teacher of task poems: the study's tasks are sums"):
        teacher_scores(study, cells, {"poems": other})


def test_the_command_takes_a_study(reported, tmp_path, capsys, monkeypatch):
    study = reported[0]
    monkeypatch.setattr("kvar.report.by_method.draw_study_figures", lambda *_, **__: ({}, {}))  # drawn above
    assert main(["report", str(study), "--output", str(tmp_path), "--method", "K=2"]) == 0
    shown = capsys.readouterr().out
    assert "Against K=2, score is resolved" in shown and (tmp_path / "report.html").is_file()
    assert main(["report", str(study), "--output", str(tmp_path), "--teacher", "sums"]) == 2
    assert "--teacher 'sums' names no file; give TASK=FILE" in capsys.readouterr().err
    assert main(["report", str(study), "--output", str(tmp_path), "--teacher", "poems=x.json"]) == 2
    assert "teacher of task poems" in capsys.readouterr().err
    assert main(["report", str(study / "sums"), "--output", str(tmp_path), "--method", "K=2"]) == 2
    assert "are for the folder of a study with several seeds" in capsys.readouterr().err


def test_bad_names_are_refused_before_the_work(reported, tmp_path):
    study = reported[0]
    with pytest.raises(ValueError, match="method 'K=3' is not in this study; its methods are start, kl, llmr"):
        report_study(study, tmp_path / "x", method="K=3")
    with pytest.raises(ValueError, match="start 'begin' is not in this study"):
        report_study(study, tmp_path / "x", start="begin")
    assert not (tmp_path / "x").exists()
