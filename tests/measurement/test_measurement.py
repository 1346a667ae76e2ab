"""What a measurement shows, draws, saves and reads back."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import kvar
from kvar.analysis import overtakes
from kvar.measurement.statistics import statistics_of_measurement
from tests.cases import ragged_prompts, tiny_gpt2, tiny_t5


def test_saved_and_read_back_whole(tmp_path: Path) -> None:
    student = tiny_gpt2()
    student.generation_config.bad_words_ids = [[5]]
    m = kvar.measure(
        student, tiny_gpt2(seed=1), ragged_prompts(4), kernels="1, 2", groups="layers",
        rollouts_per_prompt=2, max_new_tokens=5,
    )  # fmt: skip
    assert m.rollouts.policy.forbidden == (5,)
    back = kvar.load(m.save(tmp_path / "run"))
    for name in ("prompt_ids", "prompt_mask", "tokens", "mask", "finished", "prompt_index", "log_probs"):
        assert torch.equal(getattr(back.rollouts, name), getattr(m.rollouts, name)), name
    assert back.rollouts.policy == m.rollouts.policy and back.seconds == m.seconds
    assert torch.equal(back.values.q, m.values.q) and torch.equal(back.values.v, m.values.v)
    assert list(back.moments) == list(m.moments) and len(list(m.moments)) > 2
    for group in m.moments:
        for name in ("sq_norm", "mean_pair", "alignment", "cross", "pair", "prompt_pair"):
            assert torch.equal(getattr(back.moments[group], name), getattr(m.moments[group], name)), name
    assert {**back.config, "parameters": 0} == {**m.config, "parameters": 0}
    assert str(back) == str(m) and back.table(8).equals(m.table(8))
    m.save(tmp_path / "run")  # again: replaces
    assert (
        len(kvar.load(tmp_path / "run").gradients)
        == len(m.gradients)
        == len(kvar.records.load(tmp_path / "run").gradients)
    )
    other = kvar.measure(tiny_gpt2(), tiny_gpt2(seed=1), ragged_prompts(), kernels="1", seed=1, max_new_tokens=5)
    with pytest.raises(ValueError, match="already holds another run"):
        other.save(tmp_path / "run")
    assert kvar.load(other.save(tmp_path / "run", overwrite=True)).names == ("K=1",)


def test_norms_alone_are_saved_too(tmp_path: Path) -> None:
    m = kvar.measure(
        tiny_t5(), tiny_t5(seed=1), ragged_prompts(), kernels="1, 2", fields="norms", rollouts_per_prompt=2,
        max_new_tokens=4,
    )  # fmt: skip
    back = kvar.load(m.save(tmp_path))
    assert torch.equal(back.moments.sq_norm, m.moments.sq_norm) and back.moments.pair is None
    assert np.isnan(back.table()["efficiency"]).all() and (back.table()["trace"] > 0).all()


def test_report_reads_the_same_numbers(tmp_path: Path) -> None:
    from kvar.commands.main import main

    m = kvar.measure(
        tiny_t5(), tiny_t5(seed=1), ragged_prompts(4), kernels="1, 2", rollouts_per_prompt=2, max_new_tokens=4
    )
    m.save(tmp_path / "run")
    assert main(["report", str(tmp_path / "run"), "--output", str(tmp_path / "report")]) == 0
    import pandas as pd

    frame = pd.read_parquet(tmp_path / "report" / "statistics.parquet")
    assert set(frame["student"]) == {m.student}
    frame = frame.set_index(["statistic", "kernel"])["value"]
    table = m.table(batch=64).set_index("kernel")
    for statistic in ("trace", "signal", "bias_sq", "within", "mse", "trace_ratio_t0"):
        for kernel in m.names:
            assert frame[statistic, kernel] == pytest.approx(table.loc[kernel, statistic], rel=1e-5, abs=1e-6)


def test_when_one_estimator_overtakes_another() -> None:
    """Prompts are the units, as in its other tables."""
    m = kvar.measure(
        tiny_t5(), tiny_t5(seed=1), ragged_prompts(6), kernels="1, 2", rollouts_per_prompt=4, max_new_tokens=4,
    )  # fmt: skip
    for options in ({}, {"rollouts_per_prompt": 2}, {"target": "K=2", "confidence": 0.5}):
        found = m.overtakes("K=1", "K=2", **options)
        assert str(found) == str(overtakes(m.moments, "K=1", "K=2", unit="prompt", **options)) and found.n == 6
    with pytest.raises(ValueError, match="'K=3' is none of the estimators measured, K=1, K=2"):
        m.overtakes("K=1", "K=3")
    with pytest.raises(ValueError, match="steps must be a whole number of at least 1"):
        m.advise(steps=0)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    m = kvar.measure(tiny_t5(), tiny_t5(seed=1), ragged_prompts(), kernels="1", max_new_tokens=3)
    m.save(tmp_path)
    file = tmp_path / "measurement.safetensors"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"measurement\.safetensors is damaged, or not a measurement"):
        kvar.load(tmp_path)


def test_it_shows_itself_with_names_escaped() -> None:
    m = kvar.measure(
        tiny_t5(), tiny_t5(seed=1), ragged_prompts(4), kernels="1, 2", rollouts_per_prompt=2, max_new_tokens=4,
        name="<b>bold</b> & co",
    )  # fmt: skip
    html, text = m._repr_html_(), repr(m)
    assert "<b>bold" not in html and "&lt;b&gt;bold&lt;/b&gt; &amp; co" in html and html.count("<tr>") == 3
    assert "8 responses of <b>bold</b> & co to 4 prompts" in text and "K=2" in text
    ratio = m.table().set_index("kernel").loc["K=2", "trace_ratio"]
    assert f"{ratio:.1f} [" in text and f"{ratio:.1f} [" in html


def test_too_little_is_shown_too() -> None:
    one = kvar.measure(
        tiny_t5(), tiny_t5(seed=1), ragged_prompts(1), kernels="1", rollouts_per_prompt=1, max_new_tokens=3
    )
    assert "No statistics: a variance needs at least two trajectories" in str(one)
    assert "No statistics" in one._repr_html_()
    with pytest.raises(ValueError, match="at least two trajectories"):
        one.table()
    few = kvar.measure(tiny_t5(), tiny_t5(seed=1), ragged_prompts(1), kernels="1, 2", max_new_tokens=3)
    assert str(few).startswith("Fewer than three prompts") and (few.table()["trace"] > 0).all()
    assert "]" not in str(few).partition("---")[2].partition("---")[0]  # the rows hold no interval
    assert few.table()[["snr_low", "trace_high", "best_probability", "mse_best_probability"]].isna().all(axis=None)
    best = few.best_k(8)
    assert best[["mse_low", "efficiency_high", "mse_best"]].isna().all(axis=None) and best.attrs["best_mse"] is None
    assert few.table(unit="trajectory")["trace_low"].notna().all()


def test_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    m = kvar.measure(
        tiny_t5(), tiny_t5(seed=1), ragged_prompts(4), kernels="1, 2, 4", groups="layers", rollouts_per_prompt=2,
        max_new_tokens=6,
    )  # fmt: skip
    assert m.plot("variance").get_ylabel() == "tr Cov(g), ratio to K = 1"
    assert m.plot("layers").figure is not None and m.plot("snr_against_k").lines
    with pytest.raises(ValueError, match="plot kind 'pie' is unknown; choose one of efficiency, variance"):
        m.plot("pie")
    frame = statistics_of_measurement(m, 64)
    frame.loc[frame["statistic"] == "efficiency", "value"] = math.nan
    monkeypatch.setattr("kvar.measurement.pictures.statistics_of_measurement", lambda *_, **__: frame)
    with pytest.raises(ValueError, match=r"efficiency is not resolved: .* measure more prompts, or plot\('snr'\)"):
        m.plot()
