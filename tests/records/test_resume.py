"""Which folder a writer accepts, and that nothing is lost or repeated when a run goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kvar.records import RecordsError, RunWriter, check_folder, load


def steps(folder: Path) -> list[int]:
    return load(folder).metrics["step"].tolist()


def test_another_run_in_the_folder_is_refused(tmp_path, config, metrics):
    RunWriter(tmp_path, config).append("metrics", metrics(1))
    with pytest.raises(RecordsError, match=r"already holds another run \(seed is 3 there, 4 here; 1 fields differ\)"):
        RunWriter(tmp_path, {**config, "seed": 4})
    with pytest.raises(RecordsError, match=r"\(teacher is '\(not set\)' there, 'big' here"):
        RunWriter(tmp_path, {**config, "teacher": "big"})
    assert steps(tmp_path) == [1]


def test_overwrite_starts_afresh_and_leaves_other_files(tmp_path, config, metrics):
    RunWriter(tmp_path, config).append("metrics", metrics(1))
    (tmp_path / "report.html").write_text("mine")
    RunWriter(tmp_path, {"seed": 4}, overwrite=True).append("metrics", metrics(7))
    assert steps(tmp_path) == [7]
    assert load(tmp_path).config == {"seed": 4}
    assert (tmp_path / "report.html").read_text() == "mine"


def test_same_config_resumes(tmp_path, config, metrics):
    for step in (1, 2):
        with RunWriter(tmp_path / "deep" / "run", dict(reversed(config.items()))) as run:
            run.append("metrics", metrics(step))
    assert steps(tmp_path / "deep" / "run") == [1, 2]


def test_paths_and_tuples_compare_as_their_json(tmp_path, metrics):
    for value in ((1, 2), [1, 2]):
        RunWriter(tmp_path, {"sizes": value, "data": Path("a/b")})
    assert load(tmp_path).config == {"sizes": [1, 2], "data": "a/b"}


def test_config_that_is_not_json_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(RecordsError, match="config field 'model' is not JSON: object"):
        RunWriter(tmp_path / "run", {"seed": 1, "model": object()})
    assert not (tmp_path / "run").exists()


def test_a_file_in_the_place_of_the_folder(tmp_path, config):
    (tmp_path / "run").write_text("")
    with pytest.raises(RecordsError, match="is a file; name another folder"):
        RunWriter(tmp_path / "run", config)


def test_records_without_a_config_are_not_adopted(tmp_path, config, metrics):
    RunWriter(tmp_path, config).append("metrics", metrics(1))
    (tmp_path / "config.json").unlink()
    with pytest.raises(RecordsError, match=r"holds records with no config\.json beside it"):
        RunWriter(tmp_path, config)
    with pytest.raises(RecordsError, match=r"it holds no config\.json"):
        load(tmp_path)
    assert not (tmp_path / "config.json").exists()


def test_a_key_replaces_its_rows_in_place(tmp_path, config, metrics):
    with RunWriter(tmp_path, config) as run:
        for step in (1, 2, 3):
            run.append("metrics", metrics(step), key=("fixed", step))
    with RunWriter(tmp_path, config, keep=True) as run:
        run.append("metrics", metrics(2, value=9.0, rows=2), key=("fixed", 2))
        run.append("metrics", metrics(2, value=1.0), key=("other", 2))
        run.append("metrics", metrics(4))
        run.append("metrics", metrics(4))
    got = load(tmp_path).metrics
    assert got["step"].tolist() == [1, 2, 2, 3, 2, 4, 4]
    assert got["value"].tolist() == [0.5, 9, 9, 0.5, 1, 0.5, 0.5]


def test_drop_after_keeps_the_checkpoint_and_what_came_before(tmp_path, config, metrics, frames):
    with RunWriter(tmp_path, config) as run:
        run.append("metrics", metrics(1), key=1)
        run.append("metrics", metrics(2).merge(metrics(3), how="outer"), key=2)
        run.append("metrics", metrics(3), key=3)
        run.append("trajectories", frames["trajectories"])
    with RunWriter(tmp_path, config) as run:
        run.drop_after(2)
        assert steps(tmp_path) == [1, 2]
        assert len(load(tmp_path).trajectories) == 0
        for step in (3, 2):
            run.append("metrics", metrics(step), key=step)
        assert steps(tmp_path) == [1, 2, 3]
    with pytest.raises(RecordsError, match="this writer was closed"):
        run.drop_after(0)


def test_a_drop_cut_short_is_seen_by_readers_and_finished_by_the_next_writer(tmp_path, config, metrics):
    with RunWriter(tmp_path, config) as run:
        for step in (1, 2, 3):
            run.append("metrics", metrics(step))
    (tmp_path / "cut.json").write_text(json.dumps({"after": 1}))  # what a writer killed in drop_after leaves
    assert steps(tmp_path) == [1]
    with RunWriter(tmp_path, config) as run:
        run.append("metrics", metrics(2))
    assert steps(tmp_path) == [1, 2]


def test_a_second_process_may_not_write(tmp_path, config, metrics):
    script = (
        f"import json; from kvar.records import RunWriter, RecordsError\n"
        f"try: RunWriter({str(tmp_path)!r}, json.loads({json.dumps(config)!r}))\n"
        f"except RecordsError as error: print(error)"
    )

    def other() -> str:
        return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    with RunWriter(tmp_path, config) as run, RunWriter(tmp_path, config) as same_process:
        run.append("metrics", metrics(1))
        same_process.append("metrics", metrics(2))
        assert "another process is writing this run" in other()
    del run, same_process
    assert other() == ""
    assert steps(tmp_path) == [1, 2]


def test_a_field_that_came_in_later_has_its_default_in_an_older_run(tmp_path: Path) -> None:
    with RunWriter(tmp_path, {"seed": 1}):
        pass
    with RunWriter(tmp_path, {"seed": 1, "stemmer": True}, defaults={"stemmer": True, "other": 3}):
        pass
    check_folder(tmp_path, {"seed": 1, "stemmer": True}, {"stemmer": True})
    with pytest.raises(RecordsError, match="stemmer is True there, False here"):
        RunWriter(tmp_path, {"seed": 1, "stemmer": False}, defaults={"stemmer": True})
    with pytest.raises(RecordsError, match=r"stemmer is '\(not set\)' there"):
        RunWriter(tmp_path, {"seed": 1, "stemmer": True})
