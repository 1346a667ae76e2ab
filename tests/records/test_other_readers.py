"""A run's tables open in pandas, polars and DuckDB without kvar, with the same rows."""

from __future__ import annotations

import importlib
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest

import kvar
from kvar.analysis.exact import TokenMDP
from kvar.gradients import gradient_moments
from kvar.gradients.frames import gradient_frame, prompt_frame, trajectory_frame
from kvar.records import TABLES, RunWriter
from kvar.returns import KStep, returns


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    mdp = TokenMDP(4, 5, seed=0, prompts=3)
    with RunWriter(path, {"seed": 0}) as writer:
        for step in (0, 10):
            rollouts, values = mdp.sample(40, seed=step)
            weights = returns(values, rollouts.mask, [KStep(1), KStep(2)])
            moments = gradient_moments(mdp.student, rollouts, weights, ["K=1", "K=2"])
            at = {"probe": "probe", "step": step}
            writer.append("trajectories", trajectory_frame(rollouts, values, **at))
            writer.append("gradients", gradient_frame(moments, **at))
            writer.append("prompt_gradients", prompt_frame(moments, **at))
            numbers = {"gain": [0.5], "gain_low": [np.nan], "gain_high": [1.0], "seconds": [2.0]}
            words = {"estimator": ["K=1"], "previous": ["K=2"], "target": ["data"], "reason": ["It gains."]}
            chosen = pd.DataFrame(
                {"probe": ["probe"], "step": [step], "changed": [True], "batch": [64]} | numbers | words
            )
            writer.append("choices", chosen)
            efficiency = {"efficiency": [0.5], "efficiency_low": [0.25], "efficiency_high": [np.nan]}
            writer.append("candidates", chosen[["probe", "step", "estimator"]].assign(**efficiency))
            writer.append(
                "metrics", pd.DataFrame({"step": [step], "split": ["probe"], "name": ["total_gap"], "value": [1.5]})
            )
    return path


@pytest.mark.parametrize("table", TABLES)
def test_every_reader_sees_the_same_rows(folder: Path, table: str) -> None:
    own = kvar.load(folder).read(table)
    pandas = pd.concat([pd.read_parquet(path) for path in sorted((folder / table).glob("*.parquet"))])
    polars = pl.read_parquet(folder / table / "*.parquet").to_pandas()
    duck = duckdb.sql(f"select * from read_parquet('{folder / table}/*.parquet', filename=false)").df()
    for frame in (pandas, polars, duck):
        assert list(frame.columns) == list(own.columns) and len(frame) == len(own) > 0
        for column in own.columns:
            if pd.api.types.is_numeric_dtype(own[column]):
                np.testing.assert_array_equal(frame[column].to_numpy(), own[column].to_numpy())
            else:
                assert frame[column].astype(str).tolist() == own[column].astype(str).tolist()


def test_a_variance_computed_in_sql_is_kvars(folder: Path) -> None:
    """(12) from the table alone: m2 less |gbar|^2, times N/(N-1)."""
    from kvar.analysis import trace_covariance
    from kvar.gradients.frames import moments_from_frames

    query = f"""
        select estimator, count(*) / (count(*) - 1.0) * (avg("pair") - avg("cross")) as trace
        from read_parquet('{folder}/gradients/*.parquet')
        where estimator = other and step = 10 and "group" = 'all' group by estimator order by estimator
    """
    found = duckdb.sql(query).df()["trace"].to_numpy()
    run = kvar.load(folder)
    at = {"step": 10}
    moments = moments_from_frames(run.read("gradients", where=at), run.read("prompt_gradients", where=at))
    np.testing.assert_allclose(found, trace_covariance(moments).value, rtol=1e-10)
    lazy = pl.scan_parquet(folder / "gradients" / "*.parquet").filter(
        (pl.col("estimator") == pl.col("other")) & (pl.col("step") == 10)
    )
    means = lazy.group_by("estimator").agg(pl.col("pair").mean() - pl.col("cross").mean()).collect().sort("estimator")
    np.testing.assert_allclose(means["pair"].to_numpy() * 40 / 39, found, rtol=1e-10)


def test_measurements_are_listed_without_reading_rows(folder: Path) -> None:
    run = kvar.load(folder)
    assert run.measurements() == [("probe", 0), ("probe", 10)]
    assert run.measurements("trajectories") == run.measurements()
    with pytest.raises(ValueError, match="no column 'probe' in metrics"):
        run.measurements("metrics")


def test_parts_that_cannot_hold_a_row_are_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("kvar.records.load")
    read, opened = module.read_groups, []
    monkeypatch.setattr(module, "read_groups", lambda part, columns: opened.append(part.number) or read(part, columns))
    run = kvar.load(folder)
    rows = run.read("gradients", ["step"], {"step": 10, "estimator": ["K=1", "K=7"]})
    assert set(rows["step"]) == {10} and opened == [2]
    opened.clear()
    assert not len(run.read("gradients", ["step"], {"probe": "other"})) and not opened


def test_batches_are_the_rows_of_read(folder: Path) -> None:
    run = kvar.load(folder)
    batches = [rows.to_pandas() for rows in run.batches("trajectories", ["step", "q"], {"step": [0, 10]})]
    assert len(batches) == 2
    pd.testing.assert_frame_equal(pd.concat(batches, ignore_index=True), run.read("trajectories", ["step", "q"]))
