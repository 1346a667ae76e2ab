"""Places where nothing can be written are refused before the work, by every command that writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvar.records import RecordsError, RunWriter
from kvar.records.place import check_file_place, check_folder_place


def test_folders_that_are_there_or_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    for folder in (tmp_path, tmp_path / "new" / "deep", tmp_path / "link", tmp_path / "link" / "new"):
        check_folder_place(folder, "output_dir")
        check_file_place(folder / "result.json", "output")
    assert [path.name for path in tmp_path.iterdir()] == ["link"]  # asking makes nothing


def test_files_and_links_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for folder, message in (
        ("file", r"output_dir .*/file is a file; name another folder"),
        ("file/run", r"output_dir .*/file/run lies below .*/file, which is a file; name another folder"),
        ("link", r"output_dir .*/link: .*/link is a link to .*/gone, which is not there; make that folder, or name"),
        ("link/a/b", r"output_dir .*/link/a/b: .*/link is a link to .*/gone"),
    ):
        with pytest.raises(ValueError, match=message):
            check_folder_place(tmp_path / folder, "output_dir")
        with pytest.raises(RecordsError, match=message.replace("output_dir", "run")):
            RunWriter(tmp_path / folder, {"seed": 0})
    with pytest.raises(ValueError, match=r"output .* is a folder; name a file in it"):
        check_file_place(tmp_path, "output")
    with pytest.raises(ValueError, match=r"output .*x.json, in .*/file is a file"):
        check_file_place(tmp_path / "file" / "x.json", "output")


def test_folders_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path or not mode & os.W_OK)
    with pytest.raises(ValueError, match="cannot be written to; name a folder of your own"):
        check_folder_place(tmp_path / "run", "output_dir")


def test_every_command_asks_before_it_works(tmp_path: Path) -> None:
    """The inputs do not exist: who looked at them first would complain of them."""
    from kvar.report.by_method import report_study
    from kvar.report.by_run import report_runs
    from kvar.study.evaluation.judge_runs import judge_runs
    from kvar.study.grid.cells import read_study
    from kvar.study.grid.run_grid import run_study
    from kvar.study.run.probing import Measured, probe_models

    (tmp_path / "link").symlink_to(tmp_path / "gone")
    output = str(tmp_path / "link")
    for command in (
        lambda: report_runs(["nowhere"], output),
        lambda: report_study("nowhere", output),
        lambda: judge_runs("nowhere", "nowhere either", "judge", output=output),
        lambda: run_study(read_study("demo"), output),
        lambda: probe_models(Measured({}, "x", [(0, {"student": "nowhere"})], Path(output))),
    ):
        with pytest.raises(ValueError, match=r"output .* is a link to .*/gone, which is not there"):
            command()  # type: ignore[no-untyped-call]
