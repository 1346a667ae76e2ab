"""Runs whose estimator is chosen anew: what they train, record, resume and refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

import kvar
import kvar.hooks.auto_estimator as hook
from kvar.analysis.optimal.choose import Choice
from kvar.intervals.interval import Interval
from kvar.study.run.run import train_run
from kvar.study.settings.reading import settings_from
from tests.study.run.killed import killed

CONFIG = """
task: arithmetic
min_problem_steps: 1
max_problem_steps: 1
teacher: arithmetic-50k
student_config: {model_type: t5, d_model: 8, d_kv: 4, num_heads: 2, d_ff: 8, num_layers: 1, num_decoder_layers: 1}
objective: policy-gradient
estimator: auto
auto_every: 2
train_limit: 16
max_steps: 5
max_new_tokens: 6
per_device_train_batch_size: 2
gradient_accumulation_steps: 2
learning_rate: 1.0e-2
save_steps: 2
eval_limit: 0
probe_prompts: 10
probe_rollouts: 2
report_to: none
use_cpu: true
disable_tqdm: true
"""
IMMEDIATE, ALL = "gap immediate exact", "gap K=1 exact expected - position-mean"
FITTED = "gap stepwise(1:0.5, 2:-0.25, 5:0) exact expected - position-mean"
STEPS = {0: ALL, 2: ALL, 4: FITTED}
"""What is chosen at each step of a run whose choices are prescribed."""


def trained(folder: Path, **fields: Any) -> kvar.Run:
    train_run(*settings_from({**yaml.safe_load(CONFIG), "output_dir": str(folder), **fields}, "test"))
    return kvar.load(folder)


def weights(run: kvar.Run) -> bytes:
    return (run.path / "model" / "model.safetensors").read_bytes()


@pytest.fixture
def prescribed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Choices of STEPS in place of what the measurement says."""

    def chosen(self: Any, measurement: Any, current: str) -> Choice:
        name = STEPS[measurement.step]
        known = {name: Interval(0.5, 0.25, 0.75, 10), current: Interval(0.125, 0.0, 0.25, 10)}
        return Choice(name, name != current, Interval(0.375, 0.1, 0.6, 10), known, f"{name} is prescribed.")

    monkeypatch.setattr(hook.AutoEstimator, "chosen", chosen)


@pytest.mark.parametrize("step", [1, 3])
def test_a_killed_run_goes_on_as_if_it_was_not(tmp_path: Path, prescribed: None, step: int) -> None:
    fields = {"probe_every": 3, "probe_kernels": "K=1"}
    whole = trained(tmp_path / "whole", **fields)

    with killed("on_substep_end", step):
        trained(tmp_path / "killed", **fields)
    kept = kvar.load(tmp_path / "killed").choices["step"].tolist()
    assert kept == [at for at in STEPS if at <= step]
    resumed = trained(tmp_path / "killed", **fields)
    assert weights(resumed) == weights(whole)
    for table in ("choices", "candidates", "gradients", "trajectories"):
        one, two = (run.read(table).drop(columns="seconds", errors="ignore") for run in (resumed, whole))
        pd.testing.assert_frame_equal(one, two)
    assert whole.choices["estimator"].tolist() == [*STEPS.values()]
    assert whole.choices["previous"].tolist() == [IMMEDIATE, ALL, ALL]
    assert whole.choices["changed"].tolist() == [True, False, True]


def test_a_target_that_is_not_resolved_is_said_and_nothing_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Random weights score 0 everywhere, so that the score's gradient is nothing."""
    run = trained(tmp_path / "run", auto_target="score", auto_every=0)
    (choice,) = run.choices.to_dict("records")
    assert choice["target"] == "score - leave-one-out" and "not resolved" in choice["reason"]
    assert choice["estimator"] == choice["previous"] == IMMEDIATE and not choice["changed"]
    assert pd.isna(choice["gain"]) and not len(run.candidates)
    assert f"step 0, estimator {IMMEDIATE}: The target score - leave-one-out is not resolved" in capsys.readouterr().err


def test_the_data_are_measured_where_they_are_the_target(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", auto_target="data", auto_confidence=0, auto_every=0, auto_candidates="fitted")
    (choice,) = run.choices.to_dict("records")
    assert choice["target"] == "data" and choice["batch"] == 4 * 5  # of the whole run
    if choice["changed"]:
        assert choice["estimator"].startswith("gap stepwise(")
        assert set(run.candidates["estimator"]) == {IMMEDIATE, choice["estimator"]}


def test_a_checkpoint_without_its_estimator_is_refused(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", auto_every=0)
    (run.path / "evaluation.json").unlink()
    for file in run.path.glob("checkpoint-*/kvar_estimator.json"):
        file.unlink()
    with pytest.raises(ValueError, match=r"does not say which estimator was in use .* start anew\.$"):
        trained(tmp_path / "run", auto_every=0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"auto_candidates": "K=1 - leave-one-out"},
            "auto_candidates: 'K=1 - leave-one-out' cannot be trained",
        ),
        ({"auto_start": "K=1 - leave-one-out"}, "auto_start 'K=1 - leave-one-out' cannot be trained: baseline"),
        ({"auto_candidates": "K=1, imediate"}, r"auto_candidates 'K=1, imediate': .*the word 'imediate' is unknown"),
        ({"auto_candidates": ""}, "auto_candidates are empty"),
        ({"auto_target": "bleu"}, "auto_target 'bleu': .*the word 'bleu' is unknown"),
        ({"auto_every": -1}, "auto_every must be at least 0; got -1"),
        ({"auto_horizon": -1}, "auto_horizon must be at least 0; got -1"),
        ({"auto_margin": -0.1}, "auto_margin must be 0 or a positive number; got -0.1"),
        ({"auto_confidence": 1.0}, "auto_confidence must be at least 0 and below 1; got 1.0"),
        ({"auto_on": "paper"}, "auto_on 'paper' is unknown; choose one of: probe, batch"),
        ({"probe_prompts": 9}, "the probe has 9 prompts, and 'fitted' fits 5 groups of lags and needs twice as many"),
        ({"probe_rollouts": 1, "rollouts_per_prompt": 2}, "probe_rollouts is 1, and efficiency for a step"),
        ({"probe_rollouts": 1, "auto_target": "K=1 - leave-one-out"}, "probe_rollouts is 1, and 'K=1 - leave-one-out'"),
        ({"teacher": None}, "estimator is auto, .* set teacher"),
        ({"estimator": IMMEDIATE}, "auto_every is 2, but estimator is 'gap immediate exact': set estimator auto"),
        ({"objective": "kl"}, "estimator is 'auto', but objective 'kl' does not follow it"),
        ({"temperature": 0.7}, "temperature is 0.7, but estimator auto measures the gradient without it: leave temp"),
        ({"top_k": 3}, "top_k is 3, but estimator auto measures"),
        ({"entropy_weight": 0.01}, "entropy_weight is 0.01, but estimator auto measures"),
        ({"uniform_weight": 0.01}, "uniform_weight is 0.01, but estimator auto measures"),
        (
            {"objective": "policy-gradient + 0.1 sft"},
            "objective is 'policy-gradient . 0.1 sft', but estimator auto measures the gradient of policy-gradient",
        ),
        ({"length_normalised_returns": True}, "length_normalised_returns is True, but estimator auto measures"),
    ],
)
def test_what_cannot_be_chosen_is_refused_before_anything_runs(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        trained(tmp_path / "run", **fields)
    assert "\n" not in str(refused.value) and not (tmp_path / "run").exists()
