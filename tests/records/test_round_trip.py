"""What is appended is what is loaded, by kvar and without it."""

from __future__ import annotations

import platform
from importlib.metadata import version

import numpy as np
import pandas as pd
import pandas.testing as pdt
import pytest
import torch
import transformers

import kvar
from kvar.records import TABLES, RecordsError, RunWriter, empty_frame, load


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Without the storage types: text for categories, wide integers."""
    return frame.apply(
        lambda column: (
            column.astype("int64")
            if pd.api.types.is_integer_dtype(column)
            else column.astype(str)
            if isinstance(column.dtype, pd.CategoricalDtype) or pd.api.types.is_string_dtype(column)
            else column.astype("float64")
        )
    )


@pytest.mark.parametrize("table", TABLES)
def test_values_survive_exactly(table, tmp_path, config, frames):
    frame = frames[table]
    with RunWriter(tmp_path, config) as run:
        run.append(table, frame.iloc[:2])
        run.append(table, frame.iloc[2:][list(reversed(frame.columns))])
    got = getattr(load(tmp_path), table)
    assert list(got.columns) == list(empty_frame(table).columns)
    pdt.assert_frame_equal(plain(got), plain(frame[list(got.columns)]), check_exact=True)
    pdt.assert_series_equal(got.dtypes.drop(text(got)), empty_frame(table).dtypes.drop(text(got)))


def text(frame: pd.DataFrame) -> list[str]:
    return [name for name in frame if isinstance(frame[name].dtype, pd.CategoricalDtype)]


@pytest.mark.parametrize("table", TABLES)
def test_pandas_reads_the_folder_without_kvar(table, tmp_path, config, frames):
    with RunWriter(tmp_path, config) as run:
        for half in (slice(0, 1), slice(1, None)):
            run.append(table, frames[table].iloc[half])
    got = pd.read_parquet(tmp_path / table)
    pdt.assert_frame_equal(plain(got), plain(getattr(kvar.load(tmp_path), table)))


def test_empty_tables_have_typed_columns(tmp_path, config):
    RunWriter(tmp_path, config)
    run = load(tmp_path)
    for table in TABLES:
        frame = getattr(run, table)
        assert len(frame) == 0
        assert list(frame.dtypes) == list(empty_frame(table).dtypes)
    assert run.config == config
    assert run.version == kvar.__version__
    assert run.versions == {
        "python": platform.python_version(), "torch": version("torch"), "transformers": transformers.__version__
    }  # fmt: skip
    public, _, build = torch.__version__.partition("+")  # pip need not know of +cpu or +cu130
    assert run.versions["torch"] in (public, f"{public}+{build}")


def test_read_columns_and_rows(tmp_path, config, frames):
    with RunWriter(tmp_path, config) as run:
        run.append("gradients", frames["gradients"])
    run = load(tmp_path)
    got = run.read("gradients", columns=["pair", "trajectory"], where={"estimator": "ketchup-4", "prompt": [0, 7]})
    want = frames["gradients"].query("estimator == 'ketchup-4' and prompt == 0")
    assert list(got.columns) == ["pair", "trajectory"]
    np.testing.assert_array_equal(got["pair"], want["pair"])
    assert len(run.read("gradients", where={"step": 99})) == 0
    with pytest.raises(RecordsError, match="no column 'kernel' in gradients; it has probe"):
        run.read("gradients", where={"kernel": "llmr"})
    with pytest.raises(RecordsError, match="step holds int32; cannot look for 'five'"):
        run.read("gradients", where={"step": "five"})
    with pytest.raises(RecordsError, match="no table 'gradient'"):
        run.read("gradient")


def test_category_frames_go_back_in(tmp_path, config, frames):
    with RunWriter(tmp_path / "a", config) as run:
        run.append("gradients", frames["gradients"])
    with RunWriter(tmp_path / "b", config) as run:
        run.append("gradients", load(tmp_path / "a").gradients)
    pdt.assert_frame_equal(load(tmp_path / "b").gradients, load(tmp_path / "a").gradients)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="value"), "metrics: missing columns value; the table has step, split, name, value"),
        (lambda f: f.assign(note="x"), "metrics: unknown or repeated columns note"),
        (lambda f: pd.concat([f, f[["name"]]], axis=1), "metrics: unknown or repeated columns"),
        (lambda f: f.assign(step=1.5), r"metrics\.step: expected int32; Float value 1.5"),
        (lambda f: f.assign(step=2**40), r"metrics\.step: expected int32; Integer value 1099511627776"),
        (lambda f: f.assign(step="1"), r"metrics\.step: expected int32, got .* \('1'\)"),
        (lambda f: f.assign(name=7), r"metrics\.name: expected string, got int64 \('7'\)"),
        (lambda f: f.assign(name=[None, "loss"]), r"metrics\.name: no value \(None or NaN\) in row 0"),
        (lambda f: f.assign(value="high"), r"metrics\.value: expected double, got .* \('high'\)"),
        (lambda f: f.assign(value=[[1.0], [2.0]]), r"metrics\.value: expected double"),
    ],
)
def test_frames_that_do_not_fit_are_refused_whole(change, message, tmp_path, config, frames):
    with RunWriter(tmp_path, config) as run:
        run.append("metrics", frames["metrics"])
        with pytest.raises(RecordsError, match=message):
            run.append("metrics", change(frames["metrics"]))
        with pytest.raises(RecordsError, match="no table 'loss' in a run; choose one of trajectories, gradients"):
            run.append("loss", frames["metrics"])
    assert len(load(tmp_path).metrics) == len(frames["metrics"])


def test_missing_measurements_are_nan_and_values_may_be(tmp_path, config, frames):
    with RunWriter(tmp_path, config) as run:
        run.append("gradients", frames["gradients"].assign(cross=None))
        run.append("metrics", frames["metrics"].assign(value=[np.inf, np.nan]))
    run = load(tmp_path)
    assert run.gradients["cross"].dtype == np.float64
    assert run.gradients["cross"].isna().all()
    np.testing.assert_array_equal(run.metrics["value"], [np.inf, np.nan])
