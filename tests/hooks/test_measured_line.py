"""The line of a measurement in a terminal, and why there is no efficiency."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kvar.hooks import TrainerLog
from kvar.hooks.measured_line import measured_line, no_efficiency
from kvar.hooks.scalars import step_statistics
from tests.hooks.test_scalars import logged, measured, trainer_of, two_estimators


def test_the_line_by_the_numbers_of_the_table() -> None:
    _, measurement = two_estimators()
    frame = step_statistics(measurement, 6)
    table = measurement.table(6).set_index("kernel")
    best = table["best_probability"].idxmax()
    line = measured_line(measurement, frame, ["K=1", "K=8"], 6)
    e = table.loc[best]
    sure = "best" if e["best_probability"] >= 0.95 else "best not resolved, likeliest"
    r = table.loc["K=1"]
    assert line == (
        f"step 7, probe: {sure} {best} ({e['best_probability']:.2f}), efficiency of a step of 6 "
        f"{e['efficiency']:.2g} ({e['efficiency_low']:.2g} to {e['efficiency_high']:.2g}), relative variance of K=1 as "
        f"trained {r['relative_variance']:.2g} ({r['relative_variance_low']:.2g} to "
        f"{r['relative_variance_high']:.2g}), 0.2 s"
    )
    assert no_efficiency(measurement, frame) is None
    assert measured_line(measurement, None, [], 6, "hard") == "step 7, hard: no statistics, 0.2 s"


def test_a_variance_over_a_signal_that_may_be_nothing_is_not_told() -> None:
    """Six gradients of one number: |E g|^2, the mean product of two, is 0.45, and its interval holds 0."""
    gradients = torch.tensor([3.0, -1.0, 2.0, 1.5, -0.5, 0.5], dtype=torch.float64)[None, :, None].expand(2, -1, -1)
    measurement = measured(gradients, torch.arange(6), ("K=1", "K=8"))
    frame = step_statistics(measurement, 6)
    row = frame[(frame["statistic"] == "signal") & (frame["kernel"] == "K=1")].iloc[0]
    assert row["value"] == pytest.approx(0.45) and row["low"] < 0
    assert "relative variance of K=1 as trained not resolved" in measured_line(measurement, frame, ["K=1"], 6)


def test_what_is_not_resolved_is_said_so_once(tmp_path: Path) -> None:
    gradients, _ = two_estimators()
    flat = gradients - gradients.mean(dim=1, keepdim=True)
    measurement = measured(flat, torch.arange(12), ("trained", "K=1"))
    said: list[str] = []
    log = TrainerLog(trainer_of(tmp_path), 6, say=said.append, logged=False)
    log(measurement)
    log(replace(measurement, step=9))
    unresolved = "best of 2 estimators not resolved by 12 responses, relative variance as trained not resolved, 0.2 s"
    assert said == [
        f"step 7, probe: {unresolved}",
        "step 7, probe: no efficiency, since the mean of K=1, which is the gradient of J, is not told from zero by 12 "
        "responses: kvar.watch(trainer, prompts, name='held-out') measures fresh responses to more prompts.",
        f"step 9, probe: {unresolved}",
    ]
    assert not logged(log.trainer)
    silent = TrainerLog(log.trainer, 6)
    with pytest.warns(UserWarning, match="step 7: no efficiency, since the mean of K=1, which is the gradient of J"):
        silent(measurement)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        silent(replace(measurement, step=9))


def test_efficiencies_without_a_best_estimator_are_told_why() -> None:
    gradients, measurement = two_estimators()
    frame = step_statistics(measurement, 6)
    assert frame.loc[frame["statistic"] == "efficiency", "value"].notna().any()
    frame.loc[frame["statistic"] == "best_probability", "value"] = float("nan")
    why = "no best estimator, since the mean of K=1, which is the gradient of J, is not told from zero by 12 responses"
    assert str(no_efficiency(measurement, frame, best=True)).startswith(why)
    assert no_efficiency(measurement, frame) is None
    few = measured(gradients[:, :2], torch.arange(2), measurement.names)
    assert no_efficiency(few, step_statistics(few, 2), best=True) == (
        "no intervals and no best estimator by 2 prompts: measure 3 or more."
    )


def test_norms_alone_have_no_efficiency_and_the_remedy_is_another() -> None:
    _, measurement = two_estimators()
    norms = replace(measurement.moments["all"], cross=None, pair=None, alignment=None, prompt_pair=None)
    bare = replace(measurement, moments=replace(measurement.moments, groups={"all": norms}))
    assert "fields='all'" in str(no_efficiency(bare, step_statistics(bare, 6)))
