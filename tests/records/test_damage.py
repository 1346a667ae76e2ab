"""Killed writers, torn files, foreign files, newer files: a clear message, and never a wrong frame."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kvar.records import SCHEMA_VERSION, RecordsError, RecordsWarning, RunWriter, load

ROWS = 50
WRITER = f"""
import sys, pandas as pd
from kvar.records import RunWriter
run, step = RunWriter(sys.argv[1], {{"seed": 1}}), int(sys.argv[2])
while True:
    step += 1
    frame = pd.DataFrame({{"step": step, "split": "s", "name": [str(i) for i in range({ROWS})], "value": float(step)}})
    run.append("metrics", frame, key=step)
    print(step, flush=True)
"""


def start_writer(folder: Path, step: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder), str(step)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def kill(process: subprocess.Popen[str]) -> int:
    """Kill -9 and return the last step that the writer said was safe."""
    assert process.stdout is not None
    process.send_signal(signal.SIGKILL)
    lines = process.stdout.read().splitlines()
    process.stdout.close()
    process.wait()
    return max((int(line) for line in lines), default=0)


def whole(frame: pd.DataFrame) -> list[int]:
    """The steps in a frame, after checking that each is there with all its rows and its own values."""
    steps = frame["step"].unique().tolist()
    assert frame.groupby("step").size().eq(ROWS).all()
    assert (frame["value"] == frame["step"]).all()
    assert steps == list(range(1, len(steps) + 1))
    return steps


@pytest.mark.skipif(os.name == "nt", reason="kill -9 and advisory locks")
def test_a_writer_killed_again_and_again_loses_nothing_it_promised(tmp_path):
    done = 0
    for appends in (1, 12, 5):
        process = start_writer(tmp_path, done)
        assert process.stdout is not None
        heard = [int(process.stdout.readline()) for _ in range(appends)]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(whole(load(tmp_path).metrics)) >= heard[-1]  # while it runs
            promised = max(kill(process), heard[-1])
            done = len(whole(load(tmp_path).metrics))  # after its death
        assert done in (promised, promised + 1)  # one may have been written and not yet announced
    RunWriter(tmp_path, {"seed": 1})
    assert not list(tmp_path.glob("*/.part-*.tmp"))


@pytest.mark.skipif(os.name == "nt", reason="advisory locks")
def test_reading_while_it_writes_sees_whole_appends_only_and_more_of_them(tmp_path):
    process = start_writer(tmp_path)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        seen: list[int] = []
        while len(seen) < 10 or (seen[-1] == seen[0] and len(seen) < 1000):
            seen.append(len(whole(load(tmp_path).metrics)))
    finally:
        kill(process)
    assert seen == sorted(seen)
    assert seen[-1] > seen[0]


@pytest.fixture
def run(tmp_path, config, metrics) -> Path:
    """A run with three parts of metrics."""
    with RunWriter(tmp_path, config) as writer:
        for step in (1, 2, 3):
            writer.append("metrics", metrics(step))
    return tmp_path


def part(run: Path, number: int) -> Path:
    return run / "metrics" / f"part-{number:06d}.parquet"


@pytest.mark.parametrize("keep", [0, 1, 4, 100, -1])
def test_a_truncated_tail_costs_its_rows_and_says_so(run, keep, config, metrics):
    path = part(run, 3)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.warns(RecordsWarning, match=r"part-000003\.parquet: truncated; its rows are left out"):
        got = load(run).metrics
    assert got["step"].tolist() == [1, 2]
    with pytest.warns(RecordsWarning, match=r"part-000003\.parquet: truncated; set aside"):
        writer = RunWriter(run, config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        writer.append("metrics", metrics(4))
        assert load(run).metrics["step"].tolist() == [1, 2, 4]


def test_a_truncated_middle_is_an_error(run, config):
    path = part(run, 2)
    path.write_bytes(path.read_bytes()[:100])
    for open_it in (load, lambda folder: RunWriter(folder, config)):
        with pytest.raises(RecordsError, match=r"part-000002\.parquet: truncated, with later parts behind it"):
            open_it(run)


def test_files_of_others_are_errors(run):
    (run / "metrics" / "part-000004.parquet").write_text("step,value\n1,2\n")
    with pytest.raises(RecordsError, match=r"part-000004\.parquet: not a Parquet file"):
        load(run)
    part(run, 4).rename(run / "metrics" / "extra.csv")
    with pytest.raises(RecordsError, match=r"extra\.csv: not a part of kvar's records"):
        load(run)


@pytest.mark.parametrize(
    ("metadata", "columns", "message"),
    [
        ({}, None, r"no schema version of kvar records \(None\); the file is not kvar's"),
        ({"kvar.schema": "1", "kvar.table": "gradients"}, None, "holds the table 'gradients', not 'metrics'"),
        (
            {"kvar.schema": "1", "kvar.table": "metrics"},
            ["step", "name"],
            "its columns are not those of metrics, step, ",
        ),
        (
            {"kvar.schema": str(SCHEMA_VERSION + 1), "kvar.table": "metrics"},
            None,
            f"written under records schema {SCHEMA_VERSION + 1}; .*Upgrade",
        ),
    ],
)
def test_parquet_of_another_making_is_an_error_wherever_it_lies(run, metadata, columns, message):
    for number in (2, 3):
        original = part(run, number).read_bytes()
        table = pq.read_table(pa.BufferReader(original), columns=columns)
        pq.write_table(table.replace_schema_metadata(metadata), part(run, number))
        with pytest.raises(RecordsError, match=rf"part-{number:06d}\.parquet: {message}"):
            load(run)
        part(run, number).write_bytes(original)
    assert len(load(run).metrics) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not readable as JSON"),
        ("[1]", "not the config of a kvar run"),
        ('{"name": "somebody else"}', "not the config of a kvar run"),
        ('{"config": {}}', "no schema version"),
        (
            json.dumps({"config": {}, "schema": SCHEMA_VERSION + 1}),
            f"written under records schema {SCHEMA_VERSION + 1}; .*Upgrade kvar",
        ),
    ],
)
def test_a_config_of_another_making_is_an_error(run, config, content, message):
    (run / "config.json").write_text(content)
    for open_it in (load, lambda folder: RunWriter(folder, config)):
        with pytest.raises(RecordsError, match=rf"config\.json: {message}"):
            open_it(run)


def test_no_run_there(tmp_path):
    with pytest.raises(RecordsError, match="is not a folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(RecordsError, match="holds no config"):
        load(tmp_path)
