"""The batch of a study's trainings is the one that its runs recorded, rollouts and processes included."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from kvar.hooks import Recorder
from kvar.records import RunWriter
from kvar.results.study_cells import study_cells
from kvar.results.training_batch import training_batch

CONFIG = {"objective": "ketchup", "kernel": "K=4", "per_device_train_batch_size": 4, "gradient_accumulation_steps": 3}


@pytest.fixture
def write(tmp_path):
    """Write a study of runs, each given by its config and what its logs carry."""

    def study(*runs):
        cells = {f"small/m{i}": {**config, "seed": 0, "from": None} for i, (config, _) in enumerate(runs)}
        (tmp_path / "study.json").write_text(json.dumps({"cells": cells}))
        for name, (config, args) in zip(cells, runs, strict=True):
            with RunWriter(tmp_path / name, config) as writer:
                state = SimpleNamespace(is_world_process_zero=True, global_step=10)
                Recorder(writer).on_log(args, state, None, logs={"loss": 1.0, "total_gap": 2.0})
                Recorder(writer).on_log(args, state, None, logs={"eval_loss": 1.0})
            (tmp_path / name / "evaluation.json").write_text("{}")
        return study_cells(tmp_path)

    return study


def arguments(**more):
    return SimpleNamespace(train_batch_size=4, gradient_accumulation_steps=3, **more)


def test_rollouts_and_processes_count(write):
    cells = write(({**CONFIG, "rollouts_per_prompt": 5}, arguments(rollouts_per_prompt=5, world_size=2)))
    assert training_batch(cells) == 120  # 4 prompts x 3 micro-batches x 2 processes x 5 responses


def test_a_run_that_recorded_no_batch_tells_it_by_its_config(write):
    cells = write(({**CONFIG, "rollouts_per_prompt": 5}, arguments(world_size=1)))
    assert training_batch(cells) == 60


def test_the_commonest_of_the_runs_with_a_policy_gradient(write):
    one, two = (arguments(rollouts_per_prompt=r, world_size=1) for r in (1, 2))
    cells = write(
        (CONFIG, two), (CONFIG, one), (CONFIG, two), *(({**CONFIG, "objective": "kl"}, one) for _ in range(3))
    )
    assert training_batch(cells) == 24


def test_without_any_it_is_64(write):
    assert training_batch(write(({**CONFIG, "objective": "kl"}, arguments(world_size=1)))) == 64
