"""What trackers hold after a watched training: TensorBoard's event files, trackio's database, W&B's offline file."""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kvar
from tests.cases import ragged_prompts, tiny_t5
from tests.hooks.test_scalars import logged, trainer_of


def held(folder: Path, tracker: str) -> tuple[list[dict[str, float]], Any]:
    """The logs of a watched training that reports to a tracker, and its trainer."""
    trainer = trainer_of(folder, max_steps=2, report_to=tracker, run_name="mine", project="ours")
    kvar.watch(
        trainer, ragged_prompts(), "1, K=1 - leave-one-out", teacher=tiny_t5(seed=1), every=2, rollouts_per_prompt=2,
        max_new_tokens=5,
    )  # fmt: skip
    trainer.train()
    assert logged(trainer) == [0, 2]
    return [entry for entry in trainer.state.log_history if "kvar/seconds" in entry], trainer


def expected(logs: list[dict[str, float]]) -> list[dict[str, float]]:
    """Names as transformers' callbacks write them."""
    return [{f"train/{k}": v for k, v in entry.items() if k.startswith("kvar/")} for entry in logs]


def check(rows: list[dict[str, float]], logs: list[dict[str, float]]) -> None:
    """Rows by step with "train/global_step"; the loss of step 2 is a row of its own."""
    ours = [row for row in rows if "train/kvar/seconds" in row]
    assert [row["train/global_step"] for row in ours] == [0, 2]
    for row, entry in zip(ours, expected(logs), strict=True):
        assert row.items() >= entry.items()
    assert [row["train/global_step"] for row in rows if "train/loss" in row] == [2]


def test_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    logs, _ = held(tmp_path, "tensorboard")
    assert len(list((tmp_path / "events").iterdir())) == 1  # none is opened after the training's end
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    names = {name for entry in expected(logs) for name in entry}
    assert "train/kvar/snr/K1_leave-one-out" in names <= set(events.Tags()["scalars"])
    for name in names:
        told = {event.step: event.value for event in events.Scalars(name)}
        entries = {entry["step"]: one for entry, one in zip(logs, expected(logs), strict=True)}
        assert told == pytest.approx({step: entry[name] for step, entry in entries.items() if name in entry}, rel=1e-6)


def test_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason="trackio is not installed: pip install trackio")
    logs, _ = held(tmp_path, "trackio")
    with sqlite3.connect(tmp_path / "trackio" / "ours.db") as database:
        rows = [json.loads(row) for (row,) in database.execute("SELECT metrics FROM metrics ORDER BY step")]
        assert {run for (run,) in database.execute("SELECT run_name FROM metrics")} == {"mine"}
    check(rows, logs)


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="wandb is not installed: pip install wandb")
    for name, value in (("WANDB_MODE", "offline"), ("WANDB_DIR", str(tmp_path)), ("WANDB_SILENT", "true")):
        monkeypatch.setenv(name, value)
    try:
        logs, _ = held(tmp_path, "wandb")
    finally:
        wandb.finish()
        wandb.teardown()  # waits for the process that writes the file
    (file,) = tmp_path.rglob("*.wandb")
    check(list(offline_rows(file.read_bytes())), logs)


def offline_rows(data: bytes) -> Iterator[dict[str, Any]]:
    """The logged rows of W&B's offline file: LevelDB's log format, seven bytes in front."""
    from wandb.proto.wandb_internal_pb2 import Record

    place, whole = 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:  # no header begins in a block's last bytes
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or a record's last part
            record = Record()
            record.ParseFromString(whole)
            whole = b""
            if record.HasField("history"):
                yield {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
