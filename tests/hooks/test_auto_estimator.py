"""``AutoEstimator`` on kvar's trainer: what the next step is taken by, what is measured, and what is resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kvar.analysis.optimal.choose import Choice
from kvar.distill import DistillationConfig, DistillationTrainer, build_dataset, build_model
from kvar.hooks import AutoEstimator, GradientProbe
from kvar.intervals.interval import Interval
from kvar.tasks import ArithmeticTask

TASK = ArithmeticTask(1, 1)
TOKENIZER: Any = TASK.build_tokenizer()
T5 = {
    "model_type": "t5", "d_model": 8, "d_kv": 4, "num_heads": 2, "d_ff": 8, "num_layers": 1, "num_decoder_layers": 1,
}  # fmt: skip
DATA = build_dataset(TASK.examples("train", 16), TOKENIZER, max_target_tokens=20)
TEACHER = build_model(T5, TOKENIZER, seed=1)
IMMEDIATE, ALL = "gap immediate exact", "gap K=1 exact expected - position-mean"
KERNEL = "gap stepwise(1:0.5, 2:-0.25, 5:0) exact expected - position-mean"
STEPS = {0: ALL, 2: ALL, 4: KERNEL}
"""What is chosen at each step where choices are prescribed."""


def trainer(folder: Path, **changes: Any) -> DistillationTrainer:
    settings = {
        "objective": "policy-gradient", "max_steps": 6, "per_device_train_batch_size": 2, "learning_rate": 1e-2,
        "gradient_accumulation_steps": 2, "max_new_tokens": 6, "save_steps": 1, "logging_steps": 2,
        **({"estimator": "auto", "auto_every": 2} if "estimator" not in changes else {}), **changes,
    }  # fmt: skip
    args = DistillationConfig(output_dir=str(folder), use_cpu=True, report_to="none", disable_tqdm=True, **settings)
    student = build_model(T5, TOKENIZER)
    return DistillationTrainer(
        student, args, teacher=TEACHER, train_dataset=DATA, processing_class=TOKENIZER, eval_dataset=DATA
    )


def probe(prompts: int = 10, kernels: str = "K=1", **options: Any) -> GradientProbe:
    texts = [example.prompt for example in TASK.examples("validation", prompts)]
    options = {"rollouts_per_prompt": 2, "max_new_tokens": 6, "every": 3, **options}
    return GradientProbe(texts, kernels, teacher=TEACHER, tokenizer=TOKENIZER, **options)


def weights(run: DistillationTrainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in run.model.parameters()])


@pytest.fixture
def prescribed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Choices of STEPS in place of what the measurement says."""

    def chosen(self: Any, measurement: Any, current: str) -> Choice:
        name = STEPS[measurement.step]
        known = {current: Interval(0.125, 0.0, 0.25, 10)} | {name: Interval(0.5, 0.25, 0.75, 10)}
        return Choice(name, name != current, Interval(0.375, 0.1, 0.6, 10), known, f"{name} is prescribed.")

    monkeypatch.setattr(AutoEstimator, "chosen", chosen)


@pytest.mark.parametrize("name", [IMMEDIATE, ALL, KERNEL])
def test_a_training_that_never_changes_is_that_of_its_estimator(tmp_path: Path, name: str) -> None:
    """To the last bit: a measurement leaves no trace in the training."""
    auto = trainer(tmp_path / "auto", auto_start=name, auto_candidates=name)
    chooser = AutoEstimator(auto, probe())
    auto.train()
    fixed = trainer(tmp_path / "fixed", estimator=name)
    fixed.train()
    assert torch.equal(weights(auto), weights(fixed))
    assert sorted(chooser.choices) == [0, 2, 4] and auto.args.estimator == "auto"


@pytest.mark.parametrize("step", [0, 1, 2, 3, 4, 5])
def test_a_resumed_training_ends_with_the_same_weights_and_choices(tmp_path: Path, prescribed: None, step: int) -> None:
    """And from step 4 on it is a training by the estimator chosen there: the next step is taken by it."""
    whole = trainer(tmp_path / "whole")
    chooser = AutoEstimator(whole, probe())
    whole.train()
    assert [choice.name for choice in chooser.choices.values()] == [*STEPS.values()]
    again = trainer(tmp_path / "again")
    assert again.estimator == IMMEDIATE
    chooser = AutoEstimator(again, probe())
    checkpoint = str(tmp_path / "whole" / f"checkpoint-{step}") if step else None
    again.train(resume_from_checkpoint=checkpoint)
    assert torch.equal(weights(again), weights(whole))
    assert [*chooser.choices] == [number for number in STEPS if number > step or not step]
    assert again.estimator == KERNEL
    fixed = trainer(tmp_path / "fixed", estimator=KERNEL)
    fixed.train(resume_from_checkpoint=checkpoint)
    assert torch.equal(weights(fixed), weights(whole)) is (step >= 4)


def test_one_measurement_serves_probe_and_choice(tmp_path: Path, prescribed: None) -> None:
    run, both = trainer(tmp_path), probe(kernels=f"K=1, {IMMEDIATE}")
    run.add_callback(both)
    AutoEstimator(run, both)
    run.train()
    assert [m.step for m in both.measurements] == [
        0,
        2,
        3,
        4,
        6,
    ]  # 3 and the last for the probe alone
    names = both.measurements[0].moments.names
    assert names[:2] == ("K=1", IMMEDIATE) and names[-1] == "gap K=1 exact expected - leave-one-out"
    assert len(names) == 7  # and windows of 2, 3 and 5 lags, and all of them
    logs = [entry for entry in run.state.log_history if "kvar/auto/gain" in entry]
    assert [entry["step"] for entry in logs] == [0, 2, 4]
    assert [entry["kvar/auto/changed"] for entry in logs] == [1, 0, 1]
    assert [entry["kvar/auto/efficiency"] for entry in logs] == [0.125, 0.5, 0.125]  # of the one that was in use


def test_a_choice_is_for_the_step_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its batch and rollouts are the trainer's; the fitted kernel and the target fit the rollouts of each."""
    import kvar.hooks.auto_estimator as hook

    asked: dict[str, Any] = {}

    def kept(moments: Any, current: str, candidates: list[str], **options: Any) -> Choice:
        asked.update(options, current=current, candidates=candidates, names=moments.names)
        return Choice(current, False, Interval(0.0, n=10), {}, "no")

    monkeypatch.setattr(hook, "choose", kept)
    run = trainer(
        tmp_path, rollouts_per_prompt=3, auto_every=0, auto_candidates=["K=4", "fitted"], auto_margin=0.5,
        auto_confidence=0.5, auto_target="J_kl", max_steps=1,
    )  # fmt: skip
    AutoEstimator(run, probe())
    run.train()
    assert (asked["batch"], asked["rollouts_per_prompt"]) == (12, 3)
    assert (asked["margin"], asked["confidence"], asked["target"]) == (0.5, 0.5, "J_kl")
    assert asked["candidates"] == ["K=4", "fitted"] and asked["current"] == IMMEDIATE
    assert asked["among"][-1] == "gap K=1 exact expected - leave-one-out"  # three responses a prompt: unbiased
    assert asked["names"][-1] == "kl K=1 exact expected - leave-one-out"


def test_nothing_that_chooses_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="estimator is auto, but nothing chooses: add kvar.hooks.AutoEstimator"):
        trainer(tmp_path).train()
    with pytest.raises(ValueError, match="estimator is 'K=4': AutoEstimator needs estimator auto"):
        AutoEstimator(trainer(tmp_path, estimator="K=4"), probe())
    with pytest.raises(ValueError, match="estimator is 'K=4' in this training"):
        trainer(tmp_path, estimator="K=4").use_estimator("K=1")


def test_a_checkpoint_without_its_estimator_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path / "other", estimator=IMMEDIATE, max_steps=1).train()
    run = trainer(tmp_path / "run")
    AutoEstimator(run, probe())
    with pytest.raises(ValueError, match=r"checkpoint-1 does not say which estimator was in use .* start anew\.$"):
        run.train(resume_from_checkpoint=str(tmp_path / "other" / "checkpoint-1"))


@pytest.mark.parametrize(
    ("options", "settings", "message"),
    [
        ({"prompts": 9}, {}, "the probe has 9 prompts, and 'fitted' fits 5 groups of lags and needs twice as many"),
        ({"prompts": 1}, {"auto_candidates": "K=1"}, "the probe has 1 prompts, and a variance needs 2"),
        ({}, {"auto_target": "data"}, "auto_target is 'data', but the probe has no references"),
        ({}, {"auto_target": "score"}, "estimator 'score - leave-one-out' needs score="),
        ({"rollouts_per_prompt": 1}, {"rollouts_per_prompt": 2}, "probe_rollouts is 1, and efficiency for a step"),
    ],
)
def test_a_probe_that_cannot_measure_it_is_refused(
    tmp_path: Path, options: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        AutoEstimator(trainer(tmp_path, **settings), probe(**options))
