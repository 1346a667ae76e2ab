"""A study in pieces: what an earlier report wrote stands in for runs that are gone."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest

from kvar.commands.main import main
from kvar.report.by_method import report_study
from kvar.results.earlier import MADE_WITH, earlier_notes, read_earlier, with_earlier
from kvar.results.outcomes import read_study_runs
from kvar.results.study_cells import study_cells
from tests.report.study_folders import SAMPLES, write_study

METHODS = ("start", "kl", "llmr", "llmr-mean", "K=2")
NAMES = [f"sums/small/{method}/seed-{seed}" for method in METHODS for seed in (0, 1)]


def score(task, student, method, seed):
    return 10.0 * seed + len(method) / 3


def gap(task, student, method, seed):
    return 100.0 + seed / 7 - len(method)


def study(folder, missing=()):
    return write_study(
        folder, score, gap=gap, students={"small": 1_000}, seeds=(0, 1), methods=METHODS, missing=missing
    )


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """A whole study's report, and that of its second half over that of its first, whose runs are gone."""
    folder = tmp_path_factory.mktemp("pieces")
    first = [name for name in NAMES if name.endswith("seed-0")]
    early, late = study(folder / "early", missing=set(NAMES) - set(first)), study(folder / "late", missing=first)
    evaluation = {"split": "test", "examples": 3, "metrics": {"bleu": 40.0}, "samples": SAMPLES}
    (early / "sums" / "teacher.json").write_text(
        json.dumps({**evaluation, "intervals": {"bleu": {"low": 38.0, "high": 43.0}}})
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kvar.report.by_method.draw_study_figures", lambda *_, **__: ({}, {}))
        for source, out, options in (
            (study(folder / "whole"), "of-whole", {}),
            (early, "joined", {}),
            (late, "joined", {"earlier": folder / "joined"}),
        ):
            report_study(source, folder / out, say=lambda _: None, **options)
    return folder


def test_two_pieces_give_the_numbers_of_the_whole(pieces):
    for name in ("methods.csv", "ranks.csv"):
        whole, joined = (pd.read_csv(pieces / out / name) for out in ("of-whole", "joined"))
        pd.testing.assert_frame_equal(joined, whole, rtol=1e-4)  # 32 bits on disk
    for name in ("outcomes", "curves", "statistics"):
        whole, joined = (pd.read_parquet(pieces / out / f"{name}.parquet") for out in ("of-whole", "joined"))
        pd.testing.assert_frame_equal(joined.astype(object), whole.astype(object))


def test_the_page_says_which_numbers_are_older_and_has_the_runs_that_are_here(pieces):
    text = (pieces / "joined" / "methods.md").read_text(encoding="utf-8")
    assert "10 of 10 cells are finished" in text
    assert f"The numbers of 5 cells are those of the earlier report in {pieces / 'joined'}" in text
    assert "sums: the teacher's scores are those of the earlier report." in text
    assert "| teacher | 40.00 ± 2.50 |" in text
    page = (pieces / "joined" / "report.html").read_text(encoding="utf-8")
    plotted, drawn = page.split("<h2>Samples</h2>")
    assert '"llmr","seed":"0"' in plotted and '"llmr","seed":"1"' in plotted
    assert "llmr / seed 1" in drawn and "llmr / seed 0" not in drawn


def test_a_finished_run_counts_before_the_earlier_numbers(pieces):
    cells = study_cells(pieces / "late")
    earlier = read_earlier(pieces / "joined", cells)
    changed = earlier.values.outcomes
    changed["value"] = -1.0
    own = read_study_runs(cells, batch=16)
    both = with_earlier(own, earlier, batch=16, reference=None)
    values = both.outcomes.groupby("seed")["value"].unique()
    assert list(values[0]) == [-1.0] and -1.0 not in values[1]
    assert list(both.outcomes["seed"].head(3)) == [0, 0, 0]  # in the study's order
    assert both.cells["finished"].all() and set(both.cells["parameters"]) == {1_000.0}


def test_a_start_that_was_trained_again_is_told(pieces):
    cells = study_cells(pieces / "late")
    earlier = read_earlier(pieces / "joined", cells)
    mixed = [replace(cell, finished=cell.seed == 1 or cell.method == "start") for cell in cells]
    notes = earlier_notes(earlier.values, mixed, "before")
    assert "4 cells" in notes[0] and "before" in notes[0]
    assert "start of 4 of these cells" in notes[1]
    assert "sums/small/K=2/0, sums/small/kl/0" in notes[1]
    assert len(earlier_notes(earlier.values, cells, "before")) == 1


def test_earlier_numbers_alone_are_a_report(pieces, tmp_path, capsys, no_figures):
    (tmp_path / "study").mkdir()
    shutil.copy(pieces / "late" / "study.json", tmp_path / "study")
    out = tmp_path / "out"
    assert main(["report", str(tmp_path / "study"), "--earlier", str(pieces / "joined"), "--output", str(out)]) == 0
    assert "10 of 10 cells are finished" in capsys.readouterr().out
    pd.testing.assert_frame_equal(
        pd.read_csv(out / "methods.csv"), pd.read_csv(pieces / "joined" / "methods.csv"), rtol=1e-4
    )
    assert "none here" in (out / "report.html").read_text(encoding="utf-8")


def test_what_is_no_earlier_report_of_this_study_is_refused(pieces, tmp_path):
    cells = study_cells(pieces / "late")
    with pytest.raises(ValueError, match=f"lacks {MADE_WITH}; name a folder that kvar report wrote"):
        read_earlier(tmp_path, cells)
    broken = tmp_path / "broken"
    shutil.copytree(pieces / "joined", broken)
    (broken / MADE_WITH).write_text("[]")
    with pytest.raises(ValueError, match="is not what kvar report writes of a study"):
        read_earlier(broken, cells)
    with pytest.raises(ValueError, match=r"has sums/small/K=2/0 .*, which is no cell of this study"):
        read_earlier(pieces / "joined", [cell for cell in cells if cell.method != "K=2"])
    others = [replace(cell, settings="") if cell.method == "kl" else cell for cell in cells]
    with pytest.raises(ValueError, match=r"has sums/small/kl/0 .*, which has other settings in this study"):
        read_earlier(pieces / "joined", others)


def test_numbers_formed_otherwise_are_refused(pieces):
    cells = study_cells(pieces / "late")
    earlier, own = read_earlier(pieces / "joined", cells), read_study_runs(cells, batch=8)
    with pytest.raises(ValueError, match="was formed with batch 16, this report with 8: report with --batch 16"):
        with_earlier(own, earlier, batch=8, reference=None)
    with pytest.raises(ValueError, match="with reference None, this report with K=1: leave --reference out"):
        with_earlier(own, earlier, batch=16, reference="K=1")
    own.cells["parameters"] = 2_000.0
    with pytest.raises(ValueError, match="has 2000 parameters here and 1000 in earlier"):
        with_earlier(own, earlier, batch=16, reference=None)


def test_the_option_is_for_studies_with_seeds_alone(pieces, capsys):
    run = pieces / "late" / "sums" / "small"
    assert main(["report", str(run), "--earlier", str(pieces / "joined"), "--output", str(pieces / "x")]) == 2
    assert "--earlier are for the folder of a study with several seeds" in capsys.readouterr().err


def test_settings_that_matter_tell_studies_apart_and_places_do_not(tmp_path):
    def digest(**fields):
        (tmp_path / "study.json").write_text(json.dumps({"cells": {"s/kl/seed-0": fields}}))
        return study_cells(tmp_path)[0].settings

    first = digest(objective="kl", seed=0, data="a", max_steps=100)
    assert digest(max_steps=100, seed=0, data="elsewhere", teacher="t", objective="kl") == first
    assert digest(objective="kl", seed=0, data="a", max_steps=20) != first
