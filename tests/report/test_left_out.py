"""One run that cannot be summarised does not stop the report of the others; it is named, with the reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from kvar.report.by_method import report_study
from kvar.report.by_run import report_runs
from kvar.results.outcomes import read_study_runs
from kvar.results.study_cells import study_cells
from tests.report.small_runs import write_run
from tests.report.study_folders import write_study

pytestmark = pytest.mark.usefixtures("no_figures")


def scored(run: Path, score: float) -> None:
    content = {"split": "test", "examples": 1, "metrics": {"accuracy": score}, "samples": []}
    (run / "evaluation.json").write_text(json.dumps(content))


def test_a_probe_of_two_prompts_is_left_out_and_its_scores_are_not(tmp_path: Path) -> None:
    whole = write_run(tmp_path / "runs" / "tiny" / "whole")
    small = write_run(tmp_path / "runs" / "tiny" / "small", prompts=2)
    scored(small.path, 12.5)
    alone = report_runs([whole.path], tmp_path / "alone")
    table = report_runs([tmp_path / "runs"], tmp_path / "out")
    note = f"Left out, except for its scores: {small.path}: {small.path}: the probe"
    assert note in table and "has 2 prompts with several responses each" in table
    assert "Measure again with probe_prompts 3 or more" in table
    frames = [pd.read_parquet(tmp_path / folder / "statistics.parquet") for folder in ("alone", "out")]
    assert set(frames[1]["student"]) == {"tiny/whole"}
    pd.testing.assert_frame_equal(frames[0].drop(columns="student"), frames[1].drop(columns="student"))
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "probe_prompts 3 or more" in page and "12.5" in page
    assert "Left out" not in alone
    with pytest.raises(ValueError, match="has 2 prompts with several responses each"):
        report_runs([small.path], tmp_path / "none")


def test_damaged_records_and_a_config_without_parameters_are_passed_over(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "tiny" / "whole")
    damaged = write_run(tmp_path / "runs" / "tiny" / "damaged")
    part = damaged.path / "gradients" / "part-000001.parquet"
    part.write_bytes(b"not parquet")
    bare = write_run(tmp_path / "runs" / "tiny" / "bare")
    header = json.loads((bare.path / "config.json").read_text())
    del header["config"]["parameters"]
    (bare.path / "config.json").write_text(json.dumps(header))
    table = report_runs([tmp_path / "runs"], tmp_path / "out")
    assert f"{damaged.path}: {part}: not a Parquet file" in table
    assert f"{bare.path}: its config names no parameters" in table
    with pytest.raises(ValueError, match="not a Parquet file"):
        report_runs([damaged.path], tmp_path / "none")


def test_a_reference_that_no_run_has_is_an_error(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "tiny" / "whole")
    with pytest.raises(ValueError, match="K=9"):
        report_runs([tmp_path / "runs"], tmp_path / "out", reference="K=9")


def test_a_study_goes_on_without_one_cells_probe(tmp_path: Path) -> None:
    sizes = {"whole": 12, "small": 2}
    options = {"students": {"s": 1_000}, "methods": ("start", "llmr"), "seeds": (0, 1)}
    studies = {
        name: write_study(tmp_path / name, lambda task, student, method, seed: 10.0 + seed, prompts=n, **options)
        for name, n in sizes.items()
    }
    cell = Path("sums", "s", "llmr", "seed-1")
    shutil.rmtree(studies["whole"] / cell)
    shutil.copytree(studies["small"] / cell, studies["whole"] / cell)
    values = read_study_runs(study_cells(studies["whole"]), batch=64)
    assert list(values.left_out) == [str(studies["whole"] / cell)]
    pairs = set(values.statistics[["method", "seed"]].itertuples(index=False, name=None))
    assert pairs == {("start", 0), ("start", 1), ("llmr", 0)}
    assert ("llmr", 1) in set(values.outcomes[["method", "seed"]].itertuples(index=False, name=None))
    report_study(studies["whole"], tmp_path / "out")
    said = (tmp_path / "out" / "methods.md").read_text(encoding="utf-8")
    assert f"Probes left out: {studies['whole'] / cell}" in said and "probe_prompts 3 or more" in said
    with pytest.raises(ValueError, match="has 2 prompts with several responses each"):
        read_study_runs(study_cells(studies["small"]), batch=64)
