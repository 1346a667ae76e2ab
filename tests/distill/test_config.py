"""Settings: how objectives are spelled, what is refused, the preset."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from kvar.distill.objectives import OBJECTIVES, parse_objective
from kvar.returns import KStep
from tests.distill.objectives.objective_cases import config


def test_objectives_have_the_names_that_are_promised() -> None:
    names = {"sft", "seqkd", "kl", "reverse-kl", "js", "tvd", "gkd", "llmr", "ketchup", "policy-gradient"}
    assert set(OBJECTIVES) == names


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("ketchup", "ketchup"),
        ("Ketchup + 0.1 sft", "ketchup + 0.1 sft"),
        ("0.5*reverse-kl+js", "0.5 reverse-kl + js"),
        ("1e+1 sft + 2E-3*kl", "10 sft + 0.002 kl"),
        ("0.123456789 sft", "0.123456789 sft"),
        ({"ketchup": 1, "sft": 0.1}, "ketchup + 0.1 sft"),
    ],
)
def test_mixtures_are_spelled_several_ways(given: Any, name: str) -> None:
    assert parse_objective(given).name == name
    assert parse_objective(name) == parse_objective(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("ppo", "objective 'ppo' is unknown; choose one of: "),
        ("sft + sft", "names sft twice"),
        ("sft + 0 kl", "the weight of kl must be a positive number; got 0"),
        ("sft - kl", "'sft - kl' is not a weighted name"),
        ("sft +", "'' is not a weighted name"),
        ("1.2.3 sft", "'1.2.3' is not a number"),
        ("-1 sft", "the weight of sft must be a positive number; got -1"),
        ("", "objective must be a name"),
        ({}, "objective must be a name"),
        ({"sft": "much"}, "the weight of sft must be a positive number; got 'much'"),
        (3, "objective must be a name"),
    ],
)
def test_bad_mixtures_are_refused(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(objective=given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": "K=0"}, "kernel is 'K=0': KStep: k must be an integer of at least 1; got 0"),
        ({"temperature": 0.0}, "temperature must be positive in training; got 0.0"),
        ({"rollouts_per_prompt": 0}, "rollouts_per_prompt must be at least 1; got 0"),
        ({"seqkd_beams": -1}, "seqkd_beams must be at least 0; got -1"),
        ({"teacher_micro_batch": 0}, "teacher_micro_batch must be at least 1; got 0"),
        ({"baseline": "leave-one-out"}, "leave-one-out needs rollouts_per_prompt >= 2; got 1"),
        ({"baseline": "critic"}, "baseline 'critic' is unknown; choose one of .*minimum-variance"),
        ({"normalisation": "sum"}, "normalisation 'sum' is unknown; choose one of: token-mean"),
        ({"responses": "web"}, "responses 'web' is unknown; choose one of: data"),
        ({"return_clip": 0.0}, "return_clip must be a positive number; got 0.0"),
        ({"importance_clip": float("nan")}, "importance_clip must be a positive number; got nan"),
        ({"entropy_weight": -0.1}, "entropy_weight must be 0 or a positive number"),
        ({"gkd_lambda": 1.5}, "gkd_lambda must be between 0 and 1; got 1.5"),
        ({"objective": "kl", "entropy_weight": 0.1}, "objective 'kl' has neither ketchup nor llmr"),
        ({"importance_weight": "none", "importance_clip": 2.0}, "nothing is left to clip"),
        ({"objective": "js", "responses": "student"}, "responses student contradicts objective js"),
        ({"objective": "kl", "label_smoothing_factor": 0.1}, "'kl' has neither sft nor seqkd"),
        ({"preset": "paper"}, "preset 'paper' is unknown; choose none or one of: reference"),
        ({"preset": "reference", "centre": "none"}, "preset reference fixes centre = mean; got none"),
        ({"preset": "reference", "top_k": 2}, r"preset reference fixes top_k = 0 \(or 1, greedy rollouts\); got 2"),
        ({"preset": "reference", "objective": "kl"}, "preset reference is a REINFORCE recipe"),
        ({"preset": "reference", "kernel": "K=4 free"}, "anchored returns; got kernel 'K=4 free'"),
    ],
)
def test_bad_settings_are_refused_before_any_work(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**change)


def test_the_preset_fills_in_the_recipe_and_leaves_what_was_chosen() -> None:
    found = config(preset="reference", kernel="K=8", learning_rate=3e-4)
    assert (found.importance_weight, found.return_clip, found.normalisation) == ("policy", 50.0, "sequence-token-mean")
    assert (found.per_device_train_batch_size, found.gradient_accumulation_steps) == (1, 8)
    assert (found.max_new_tokens, found.max_prompt_tokens, found.learning_rate) == (512, 512, 3e-4)
    assert found.optim.startswith("adamw")
    assert config(preset="reference").learning_rate == 1e-5
    assert config(preset="reference").top_k == 0 and config(preset="reference", top_k=1).top_k == 1


def test_a_config_survives_pickling_and_json() -> None:
    """Checkpoints hold it."""
    found = config(objective="ketchup + 0.1 sft")
    assert pickle.loads(pickle.dumps(found)).mixture.name == "ketchup + 0.1 sft"
    assert found.to_dict()["objective"] == "ketchup + 0.1 sft"
    assert KStep(4).name == found.kernel


def test_yaml_and_command_line(tmp_path: Path) -> None:
    from kvar.study.settings.reading import read_settings

    path = tmp_path / "run.yaml"
    path.write_text(
        "teacher: arithmetic\nstudent_config: {model_type: t5}\noutput_dir: out\nuse_cpu: true\nreport_to: none\n"
        "objective: {ketchup: 1, sft: 0.5}\nresponses: none\nbaseline: none\n"
    )
    _, training = read_settings(str(path))
    assert (training.objective, training.responses, training.baseline) == ("ketchup + 0.5 sft", None, None)
    _, training = read_settings(str(path), {"objective": "kl + 2 js", "responses": "teacher", "seqkd_beams": 0})
    assert (training.objective, training.responses, training.seqkd_beams) == ("kl + 2 js", "teacher", 0)


def test_every_field_has_help() -> None:
    from dataclasses import fields

    from transformers import TrainingArguments

    from kvar.distill import DistillationConfig

    inherited = {f.name for f in fields(TrainingArguments)} - {"remove_unused_columns"}
    for f in fields(DistillationConfig):
        assert f.name in inherited or f.metadata.get("help"), f.name


@pytest.mark.parametrize("name", ["fp16", "fp16_full_eval"])
def test_float16_on_a_processor_is_refused(name: str) -> None:
    with pytest.raises(
        ValueError, match=rf"{name} is true, but .* Leave it out, or set {name.replace('fp', 'bf')} true"
    ):
        config(**{name: True})
    assert config(bf16=True).bf16
