"""The data of the interactive plot: every number of the frame, seeds averaged beside, a cap that says what it costs."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from kvar.analysis.frames.across_seeds import across_seeds
from kvar.report import write_report
from kvar.report.page.explore import MEAN, explore_data
from tests.report.test_html import Page


def numbers_of(data):
    """(task, student, method, seed, step, group, statistic, kernel) -> (value, low, high, n)."""
    found = {}
    for line, step, group, statistics in data["blocks"]:
        place = tuple(data["lines"][line][name] for name in ("task", "student", "method", "seed"))
        for number, lists in statistics.items():
            *ends, n = lists
            rows = zip(*ends, n if isinstance(n, list) else [n] * len(ends[0]), strict=True)
            for kernel, ends in zip(data["kernels"], rows, strict=True):
                if not math.isnan(ends[0]):
                    found[(*place, step, group, data["statistics"][int(number)][0], kernel[0])] = ends
    return found


def grid(frame):
    rng = np.random.default_rng(0)
    cells = [
        frame.assign(task=task, method=method, seed=seed, value=frame["value"] * rng.uniform(0.9, 1.1, len(frame)))
        for task in ("sums", "words")
        for method in ("K=16", "K=2")
        for seed in range(3)
        if (method, seed) != ("K=2", 2)
    ]
    return pd.concat(cells, ignore_index=True)


def test_every_number_of_a_plain_frame_is_there(frame):
    frame = frame.assign(n=frame["n"].where(frame["statistic"] != "snr", 1024) + (frame["kernel"] == "K=2"))
    data = explore_data(frame)
    found = numbers_of(data)
    known = frame[frame["value"].notna()]
    assert len(found) == len(known) == data["shown"] == data["measured"]
    for row in known.itertuples():
        value, low, high, n = found[("", row.student, "", "", row.step, row.group, row.statistic, row.kernel)]
        assert (value, n) == (row.value, row.n)
        np.testing.assert_equal([low, high], [row.low, row.high])
    assert [line["student"] for line in data["lines"]] == ["small", "medium", "large"]
    assert data["kernels"][-1] == ("immediate", math.inf)


def test_seeds_are_averaged_as_analysis_averages_them(frame):
    own = grid(frame)
    data = explore_data(own)
    found = numbers_of(data)
    one = own[(own["task"] == "sums") & (own["method"] == "K=16") & (own["student"] == "large")]
    for row in across_seeds(one).dropna(subset=["value"]).itertuples():
        at = ("sums", "large", "K=16", MEAN, row.step, row.group, row.statistic, row.kernel)
        np.testing.assert_allclose(found[at], [row.value, row.low, row.high, row.n], rtol=1e-12)
    assert data["facets"]["seed"] == [MEAN, "0", "1", "2"]
    assert data["facets"]["method"] == ["K=2", "K=16"]
    assert ("words", "large", "K=2", "2", 200, "all", "trace", "K=1") not in found


def test_a_cap_keeps_last_steps_of_the_whole_gradient_and_says_what_it_left_out(frame, tmp_path, monkeypatch):
    own = pd.concat([frame, frame.assign(group="head")], ignore_index=True)
    last = own[(own["step"] == own["step"].max()) & (own["group"] == "all") & own["value"].notna()]
    data = explore_data(own, most=len(last))
    assert data["shown"] == len(last) < data["measured"]
    assert {(step, group) for _, step, group, _ in data["blocks"]} == {(own["step"].max(), "all")}
    whole = Page(write_report(tmp_path / "r.html", None, explore=own).read_text(encoding="utf-8"))
    monkeypatch.setattr("kvar.report.page.document.explore_data", lambda frame: data)
    cut = Page(write_report(tmp_path / "r.html", None, explore=own).read_text(encoding="utf-8"))
    assert f"{len(last)} of {data['measured']} values" in cut.text() and "left out" not in whole.text()


def test_a_seed_that_occurs_twice_is_refused(frame):
    own = frame.assign(task="t", method="m", seed=0)
    with pytest.raises(ValueError, match="occurs twice"):
        explore_data(pd.concat([own, own, own.assign(seed=1)], ignore_index=True))
