"""``kvar report``: from run folders to a page with every figure that the records hold."""

from __future__ import annotations

import json
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from kvar.analysis import toward
from kvar.analysis.frames.recorded import by_position_of, moments_at, statistics_of
from kvar.plots import toward_over_training
from kvar.records import RunWriter
from kvar.records.study_folder import write_cells
from kvar.report.by_run import report_runs
from kvar.report.figures.by_run import draw_figures
from kvar.report.page.by_run import NO_PROBES
from kvar.report.tables.by_run import calibration_table
from kvar.results.run_folders import student_names
from tests.plots.statistics_frames import study
from tests.report.small_runs import write_run


def plain_run(folder, score):
    """A run without a probe, evaluated."""
    with RunWriter(folder, {"task": "tiny", "parameters": 27, "objective": "kl", "seed": 0}) as writer:
        row = {"step": [1], "split": ["train"], "name": ["loss"], "value": [1.0]}
        writer.append("metrics", pd.DataFrame(row), key=("step", 1))
    samples = [{"prompt": "1 + 1", "target": "2", "text": "<i>3</i>"}]
    content = {"split": "test", "examples": 1, "metrics": {"accuracy": score}, "samples": samples}
    (folder / "evaluation.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_run(folder / "runs" / "tiny" / "K=1", steps=(0, 10), split=True, groups=True)
    plain_run(folder / "runs" / "tiny" / "kl", 41.5)
    table = report_runs([folder / "runs"], folder / "out")
    return folder / "out", table


def test_every_figure_that_the_records_hold_is_drawn_and_the_others_have_a_reason(reported):
    folder, _ = reported
    drawn = {path.stem for path in (folder / "figures").glob("*.png")}
    assert {
        "variance_against_k", "theory_beside_measurement", "bias_against_variance", "efficiency_against_k",
        "mse_against_k", "variance_by_layer", "variance_by_position", "gap_autocorrelation", "variance_over_training",
        "efficiency_over_training",
    } <= drawn  # fmt: skip
    assert not {"score_power_against_size", "variance_against_size"} & drawn  # of one size there is nothing to see
    assert {path.stem for path in (folder / "figures").glob("*.svg")} == drawn


def test_variance_against_size_is_drawn_for_students_of_several_sizes(tmp_path):
    small, large = (statistics_of(write_run(tmp_path / str(n) / "r", parameters=n), str(n)) for n in (1_000, 5_000))
    drawn, _ = draw_figures(pd.concat([small, large]), tmp_path / "figures", "last", pd.DataFrame(), pd.DataFrame())
    assert drawn["Variance against size"].name == "variance_against_size.png"


def test_the_page_holds_calibration_and_choices(reported):
    folder, _ = reported
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<h2>Theory over measurement</h2>" in page
    assert "<h2>Which K for which step</h2>" in page
    assert "256 x 4" in page


def test_statistics_on_disk_hold_the_theory_of_every_step_and_group(reported):
    folder, _ = reported
    frame = pd.read_parquet(folder / "statistics.parquet")
    own = frame[frame["statistic"] == "calibration_t1"]
    assert set(own["step"]) == {0, 10}
    assert set(own["group"]) == {"all", "first", "second"}
    assert not frame["kernel"].str.contains("@").any()
    known = own[(own["k"] != 1) & (own["group"] == "all")]
    assert (known["low"] < known["value"]).all() and (known["value"] < known["high"]).all()


def test_estimators_split_by_position_are_kept_apart(tmp_path):
    both, plain = (write_run(tmp_path / str(split) / "r", split=split) for split in (True, False))
    pd.testing.assert_frame_equal(statistics_of(both, "s"), statistics_of(plain, "s"), rtol=1e-9)
    positions = by_position_of(both, "s")
    assert list(positions["kernel"].unique()) == ["K=1", "K=2", "K=4", "immediate"]
    np.testing.assert_allclose(positions.groupby("kernel")["share"].sum(), 1.0)
    assert not len(by_position_of(plain, "s"))
    assert moments_at(plain, "probe", 0, split=True) is None


def test_runs_of_different_teachers_are_reported_with_a_warning(tmp_path, no_figures):
    for name, teacher in (("a", "one"), ("b", "two")):
        write_run(tmp_path / "runs" / name / "K=1", teacher=teacher, prompts=20)
    table = report_runs([tmp_path / "runs"], tmp_path / "out")
    assert "differ in teacher (one, two)" in table.splitlines()[0]
    assert "differ in teacher (one, two)" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_runs_without_probes_are_reported_by_their_scores(tmp_path):
    plain_run(tmp_path / "runs" / "small" / "kl", 41.5)
    table = report_runs([tmp_path / "runs"], tmp_path / "out")
    assert table.startswith(NO_PROBES) and "41.5" in table
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert NO_PROBES in page and "41.5" in page and "&lt;i&gt;3&lt;/i&gt;" in page
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.html", "table.txt"]


def test_a_mix_of_runs_shows_the_scores_of_all(reported):
    folder, table = reported
    assert "1 of 2 runs hold no gradient probe" in table
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "41.5" in page and "Fields that differ between the 2 runs" in page and 'id="explore-data"' in page
    assert 'id="responses-data"' in page


def test_a_run_with_several_targets_says_where_a_step_leads(tmp_path, no_figures):
    """The moments of small_runs, one of whose estimators is called an objective's."""
    run = write_run(tmp_path / "runs" / "a" / "K=1", steps=(0, 10), rename={"K=4": "kl K=1"})
    table = report_runs([tmp_path / "runs"], tmp_path / "out")
    leads = pd.read_parquet(tmp_path / "out" / "toward.parquet")
    assert set(leads["target"]) == {"J", "J_kl"} and set(leads["step"]) == {0, 10}
    assert "Where a step of 64 leads" in table and "toward J_kl" in table
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<h2>Where a step of 64 leads</h2>" in page
    expected = toward(moments_at(run, "probe", 10), ["J", "J_kl"], 64, unit="prompt")
    np.testing.assert_allclose(leads[leads["step"] == 10]["efficiency"], expected["efficiency"])
    figure = toward_over_training(leads)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["toward J", "toward J_kl"]


def test_a_step_without_a_probe_is_refused_with_those_that_have_one(tmp_path, no_figures):
    write_run(tmp_path / "runs" / "a" / "K=1", steps=(0, 10), prompts=20)
    with pytest.raises(ValueError, match="no run was probed at step 77; choose of 0, 10, or last"):
        report_runs([tmp_path / "runs"], tmp_path / "out", step=77)


def test_folders_without_runs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no run in .*; name folders that kvar train"):
        report_runs([tmp_path], tmp_path / "out")
    with pytest.raises(ValueError, match="is not a folder"):
        report_runs([tmp_path / "absent"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_calibration_table_has_a_line_a_student_step_and_level():
    frame = study()
    table = calibration_table(frame)
    assert len(table) == 3 * 3 * 2
    assert list(table.columns) == ["student", "step", "theory", "K=2", "K=4", "K=8", "immediate"]
    assert table["K=4"].iloc[0] == "1.50 (1.38 to 1.62)"
    assert not len(calibration_table(frame[~frame["statistic"].str.startswith("calibration")]))


def test_equal_responses_and_one_rollout_are_reported(tmp_path):
    write_run(tmp_path / "runs" / "equal" / "K=1", equal=True, prompts=20)
    write_run(tmp_path / "runs" / "single" / "K=1", rollouts=1, prompts=40)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        table = report_runs([tmp_path / "runs"], tmp_path / "out")
    assert "equal" in table and "single" in table
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "the probe has one rollout a prompt" in page


def test_two_processes_give_the_frame_of_one(tmp_path):
    run = write_run(tmp_path / "tiny" / "K=1", steps=(0, 10, 20))
    pd.testing.assert_frame_equal(statistics_of(run, "tiny", processes=2), statistics_of(run, "tiny"))


def test_runs_are_named_by_as_much_of_their_folders_as_tells_them_apart(tmp_path):
    def named(*folders, students=None):
        configs = [{}] * len(folders) if students is None else [{"student": student} for student in students]
        return student_names(
            [SimpleNamespace(path=tmp_path / at, config=config) for at, config in zip(folders, configs, strict=True)]
        )

    assert named("small/K=1", "large/K=1") == ["small", "large"]
    assert named("small/K=1", "small/K=4", "large/K=1") == ["small/K=1", "small/K=4", "large"]
    assert named("small/K=1/seed-0", "large/K=1/seed-0") == ["small", "large"]
    assert named("small/K=1/seed-0", "small/K=1/seed-1") == ["small/K=1/seed-0", "small/K=1/seed-1"]
    assert named("a/small/K=1/seed-0", "b/small/K=1/seed-0") == ["a/small/K=1/seed-0", "b/small/K=1/seed-0"]
    own = ["arithmetic-50k", "hub/flan-t5-small", "../done/model"]
    assert named("runs/one", "runs/two", "runs/three", students=own) == ["arithmetic-50k", "flan-t5-small", "done"]
    assert named("runs/one", "runs/two", students=["a", "a"]) == ["a/one", "a/two"]
    assert named("one/K=1/seed-0", "one/K=1/seed-1", students=["a", "a"]) == ["a/K=1/seed-0", "a/K=1/seed-1"]
    write_cells(tmp_path / "grid", {})
    assert named("grid/small/K=1", "runs/one", students=["../model", "b"]) == ["small", "b"]
