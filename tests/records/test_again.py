"""A folder that is written again holds one training: the earlier one's rows make way, and are said to."""

from __future__ import annotations

import warnings
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from kvar.records import RecordsError, RecordsWarning, RunWriter, load


def value(folder: Path) -> dict[int, float]:
    metrics = load(folder).metrics
    assert metrics["step"].is_unique
    return dict(zip(metrics["step"].tolist(), metrics["value"].tolist(), strict=True))


def written(folder, config, metrics, steps, number, key=True, **options):
    writer = RunWriter(folder, config, **options)
    for step in steps:
        writer.append("metrics", metrics(step, value=number), key=("probe", step) if key else None)
    return writer


@pytest.mark.parametrize("key", [True, False])
def test_a_second_training_from_the_start_supersedes_the_first(tmp_path, config, metrics, key):
    """A notebook's cell run twice, the second time shorter; with keys as the probe gives them, and without."""
    written(tmp_path, config, metrics, [0, 50, 100, 150], 1.0, key)
    with pytest.warns(RecordsWarning, match=r"4 rows of steps 0 to 150 are of an earlier training.*set aside"):
        written(tmp_path, config, metrics, [0, 50], 2.0, key)
    assert value(tmp_path) == {0: 2.0, 50: 2.0}
    kept = sorted((tmp_path / "metrics").glob(".part-*.earlier"))
    assert [pq.read_table(path)["step"].to_pylist() for path in kept] == [[0], [50], [100], [150]]


def test_what_came_before_the_first_new_step_stays_and_other_names_too(tmp_path, config, metrics, frames):
    with written(tmp_path, config, metrics, [0, 50, 100], 1.0) as writer:
        writer.append("trajectories", frames["trajectories"])  # of the probe "fixed" at step 5
    with pytest.warns(RecordsWarning, match="1 rows of step 100 are"):
        written(tmp_path, config, metrics, [75, 100], 2.0)
    assert value(tmp_path) == {0: 1.0, 50: 1.0, 75: 2.0, 100: 2.0}
    with pytest.warns(RecordsWarning, match="3 rows of steps 50 to 100"):
        written(tmp_path, config, metrics, [2], 3.0)
    assert value(tmp_path) == {0: 1.0, 2: 3.0}
    earlier = [pq.read_table(path)["step"].to_pylist() for path in sorted(tmp_path.glob("metrics/.part-*.earlier"))]
    assert earlier == [[50], [75], [100]]  # one generation: those of the time before are gone
    assert len(load(tmp_path).trajectories) == 6
    again = frames["gradients"].assign(probe="fixed", step=3)
    with RunWriter(tmp_path, config) as writer, pytest.warns(RecordsWarning, match="6 rows of step 5 are"):
        writer.append("gradients", again)  # the same probe, in another table and earlier
    assert len(load(tmp_path).trajectories) == 0
    assert value(tmp_path) == {0: 1.0, 2: 3.0}


def test_rows_of_several_names_in_one_part_are_told_apart(tmp_path, config):
    both = pd.DataFrame({"step": [4, 4, 9], "split": ["a", "b", "a"], "name": "gap", "value": [1.0, 1.0, 1.0]})
    with RunWriter(tmp_path, config) as writer:
        writer.append("metrics", both, key="both")
    again = both.assign(value=2.0)
    with RunWriter(tmp_path, config) as writer:
        with pytest.warns(RecordsWarning, match="1 rows of step 9 are"):
            writer.append("metrics", again[again["step"] == 9])
        with pytest.warns(RecordsWarning, match="1 rows of step 4 are"):
            writer.append("metrics", again[again["split"] == "b"])
    rows = load(tmp_path).metrics[["step", "split", "value"]].itertuples(index=False, name=None)
    assert sorted(rows) == [(4, "a", 1.0), (4, "b", 2.0), (9, "a", 2.0)]
    copies = [pq.read_table(path).num_rows for path in sorted(tmp_path.glob("metrics/.part-*.earlier*"))]
    assert copies == [3, 2]  # the part before each time


def test_going_on_adding_and_resuming_supersede_nothing(tmp_path, config, metrics):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written(tmp_path, config, metrics, [0, 50, 100], 1.0)
        written(tmp_path, config, metrics, [150], 1.0)
        written(tmp_path, config, metrics, [20, 50], 2.0, keep=True)
        assert value(tmp_path) == {0: 1.0, 20: 2.0, 50: 2.0, 100: 1.0, 150: 1.0}
        with RunWriter(tmp_path, config) as resumed:  # from a checkpoint of step 100
            resumed.drop_after(100)
            resumed.append("metrics", metrics(100, value=3.0), key=("probe", 100))
        assert value(tmp_path) == {0: 1.0, 20: 2.0, 50: 2.0, 100: 3.0}


def test_a_training_says_that_it_begins(tmp_path, config):
    def rows(split: str, step: int, number: float) -> pd.DataFrame:
        return pd.DataFrame({"step": [step], "split": [split], "name": ["gap"], "value": [number]})

    def splits() -> list[tuple[str, int, float]]:
        return sorted(load(tmp_path).metrics[["split", "step", "value"]].itertuples(index=False, name=None))

    with RunWriter(tmp_path, config) as writer:
        for split in ("a", "b", "scores"):
            writer.append("metrics", rows(split, 7, 1.0))
    with RunWriter(tmp_path, config) as writer:
        with pytest.warns(RecordsWarning, match="3 rows of step 7"):
            writer.begin(0, "a")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            writer.append("metrics", rows("a", 0, 2.0))
            writer.begin(0, "b")  # another callback of the same training
            writer.append("metrics", rows("b", 3, 2.0))
            writer.append("metrics", rows("scores", 4, 2.0))
            assert splits() == [("a", 0, 2.0), ("b", 3, 2.0), ("scores", 4, 2.0)]
            writer.begin(3, "a", "b")  # it goes on from a checkpoint, which its rows are not past
            writer.append("metrics", rows("a", 4, 2.0))
            writer.begin(3, "a", "b")
            assert splits() == [("a", 0, 2.0), ("b", 3, 2.0), ("scores", 4, 2.0)]
        with pytest.warns(RecordsWarning, match="1 rows of step 0 are"):
            writer.begin(0, "a")  # the callback in its next training
        writer.append("metrics", rows("a", 0, 3.0))
        assert splits() == [("a", 0, 3.0), ("b", 3, 2.0), ("scores", 4, 2.0)]
    with pytest.raises(RecordsError, match="this writer was closed"):
        writer.begin(0, "a")


def test_a_resumed_training_in_a_new_process_drops_what_it_repeats(tmp_path, config, metrics):
    written(tmp_path, config, metrics, [0, 50, 100], 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        writer = RunWriter(tmp_path, config)
        writer.begin(50, "probe")
        assert value(tmp_path) == {0: 1.0, 50: 1.0}
        writer.append("metrics", metrics(50, value=2.0), key=("probe", 50))
    assert value(tmp_path) == {0: 1.0, 50: 2.0}


def test_a_writer_of_before_does_not_write_into_new_parts(tmp_path, config, metrics):
    """A probe that still holds the first cell's writer."""
    before = written(tmp_path, config, metrics, [0, 50], 1.0)
    with pytest.warns(RecordsWarning):
        written(tmp_path, config, metrics, [0], 2.0)
    before.append("metrics", metrics(50, value=3.0), key=("probe", 50))
    assert value(tmp_path) == {0: 2.0, 50: 3.0}
