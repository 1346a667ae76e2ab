"""``AutoEstimator`` on kvar's trainer: what the next step is taken by, what is measured, and what is resumed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from kvar.analysis.optimal.choose import Choice
from kvar.distill import DistillationConfig, DistillationTrainer, build_dataset, build_model
from kvar.hooks import AutoEstimator, GradientProbe
from kvar.intervals.interval import Interval
from kvar.tasks import ArithmeticTask
from tests.hooks import auto_worker
from tests.two_processes import results

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


def stored(folder: Path, step: int) -> list[torch.Tensor]:
    return [x for _, x in sorted(load_file(folder / f"checkpoint-{step}" / "model.safetensors").items())]


def stop_after(run: DistillationTrainer, step: int) -> None:
    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = state.global_step == step

    run.add_callback(Stop())


@contextmanager
def prescribed() -> Iterator[None]:
    """Choices of STEPS in place of what the measurement says."""

    def chosen(self: Any, measurement: Any, current: str) -> Choice:
        name = STEPS[measurement.step]
        known = {current: Interval(0.125, 0.0, 0.25, 10)} | {name: Interval(0.5, 0.25, 0.75, 10)}
        return Choice(name, name != current, Interval(0.375, 0.1, 0.6, 10), known, f"{name} is prescribed.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AutoEstimator, "chosen", chosen)
        yield


def chooser_of(run: DistillationTrainer) -> AutoEstimator:
    return AutoEstimator(run, probe() if run.args.auto_on == "probe" else None)


@pytest.mark.parametrize(("name", "on"), [(IMMEDIATE, "batch"), (ALL, "probe"), (KERNEL, "probe")])
def test_a_training_that_never_changes_is_that_of_its_estimator(tmp_path: Path, name: str, on: str) -> None:
    """To the last bit: a measurement leaves no trace in the training."""
    auto = trainer(tmp_path / "auto", auto_start=name, auto_candidates=name, auto_on=on)
    chooser = chooser_of(auto)
    auto.train()
    fixed = trainer(tmp_path / "fixed", estimator=name)
    fixed.train()
    assert torch.equal(weights(auto), weights(fixed))
    assert sorted(chooser.choices) == [0, 2, 4] and auto.args.estimator == "auto"


@pytest.fixture(scope="module", params=["probe", "batch"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> DistillationTrainer:
    """A training with changes, of which every step has a checkpoint."""
    run = trainer(tmp_path_factory.mktemp("whole"), auto_on=request.param, auto_candidates=f"{ALL}, {KERNEL}")
    chooser = chooser_of(run)
    with prescribed():
        run.train()
    assert {step: choice.name for step, choice in chooser.choices.items()} == STEPS
    assert run.estimator == KERNEL and run.args.estimator == "auto"
    return run


@pytest.mark.parametrize("step", [1, 3, 4, 5])
def test_a_resumed_training_ends_with_the_same_weights_and_choices(
    tmp_path: Path, whole: DistillationTrainer, step: int
) -> None:
    on = whole.args.auto_on
    again = trainer(tmp_path, auto_on=on, auto_candidates=f"{ALL}, {KERNEL}")
    assert again.estimator == IMMEDIATE
    chooser = chooser_of(again)
    with prescribed():
        again.train(resume_from_checkpoint=str(Path(whole.args.output_dir) / f"checkpoint-{step}"))
    assert torch.equal(weights(again), weights(whole))
    # the probe is measured after a step, before its checkpoint; the batch in the step
    assert [*chooser.choices] == [number for number in STEPS if number > step or (number == step and on == "batch")]


@pytest.mark.parametrize(("step", "name"), [(2, ALL), (4, KERNEL)])
def test_the_step_after_a_choice_is_taken_by_it(
    tmp_path: Path, whole: DistillationTrainer, step: int, name: str
) -> None:
    """From one checkpoint to the next the weights are those of a training by the estimator that was chosen before."""
    first = step + (whole.args.auto_on == "batch")  # whose own step is taken by the one in use
    folder = Path(whole.args.output_dir)
    for other in (ALL, KERNEL):
        fixed = trainer(tmp_path / other[:8], estimator=other)
        stop_after(fixed, first + 1)
        fixed.train(resume_from_checkpoint=str(folder / f"checkpoint-{first}"))
        pairs = zip(stored(folder, first + 1), stored(tmp_path / other[:8], first + 1), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs) is (other == name)


def test_one_measurement_serves_probe_and_choice(tmp_path: Path) -> None:
    run, both = trainer(tmp_path), probe(kernels=f"K=1, {IMMEDIATE}")
    run.add_callback(both)
    AutoEstimator(run, both)
    with prescribed():
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
    """Rollouts are the trainer's, the batch that of its horizon; the fitted kernel and the target fit the rollouts."""
    import kvar.hooks.auto_estimator as hook

    asked: dict[str, Any] = {}

    def kept(moments: Any, current: str, candidates: list[str], **options: Any) -> Choice:
        asked.update(options, current=current, candidates=candidates, names=moments.names)
        return Choice(current, False, Interval(0.0, n=10), {}, "no")

    monkeypatch.setattr(hook, "choose", kept)
    run = trainer(
        tmp_path, rollouts_per_prompt=3, auto_every=0, auto_candidates=["K=4", "fitted"], auto_margin=0.5,
        auto_confidence=0.5, auto_target="J_kl", auto_horizon=10, max_steps=1,
    )  # fmt: skip
    AutoEstimator(run, probe(rollouts_per_prompt=3))
    run.train()
    assert (asked["batch"], asked["rollouts_per_prompt"]) == (120, 3)
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
    ("settings", "message"),
    [
        ({}, "a step has 4 prompts, and 'fitted' fits 5 groups of lags and needs twice as many: give at least 10"),
        ({"auto_candidates": ALL, "auto_target": "data"}, "auto_target is 'data', which only a probe measures"),
        ({"auto_candidates": ALL, "auto_target": "score"}, "has no scores for 'score'"),
        ({"auto_candidates": ALL, "auto_target": "K=1 - leave-one-out"}, "rollouts_per_prompt is 1, and 'K=1 - leave"),
    ],
)
def test_a_batch_that_cannot_be_measured_is_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    run = trainer(tmp_path, auto_on="batch", **settings)
    with pytest.raises(ValueError, match=message):
        AutoEstimator(run)


def test_a_probe_is_asked_for_where_it_is_measured(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="auto_on is 'probe', but there is no probe: give a GradientProbe"):
        AutoEstimator(trainer(tmp_path))
    with pytest.raises(ValueError, match="auto_on is 'batch', which asks no probe"):
        AutoEstimator(trainer(tmp_path, auto_on="batch", auto_candidates=ALL), probe())


@pytest.mark.parametrize(
    ("options", "settings", "message"),
    [
        ({"prompts": 9}, {}, "the probe has 9 prompts, and 'fitted' fits 5 groups of lags and needs twice as many"),
        ({"prompts": 1}, {"auto_candidates": "K=1"}, "the probe has 1 prompts, and a variance needs 2"),
        ({}, {"auto_target": "data"}, "auto_target is 'data', but the probe has no references"),
        ({}, {"auto_target": "score"}, "estimator 'score - leave-one-out' needs score="),
        ({"rollouts_per_prompt": 1}, {"rollouts_per_prompt": 2}, "probe_rollouts is 1, and efficiency for a step"),
        ({}, {"rollouts_per_prompt": 3}, "probe_rollouts is 2 and rollouts_per_prompt 3, but the noise of 'gap K=1"),
        ({"max_new_tokens": 5}, {}, "max_new_tokens of the probe is 5, but the training's is 6, so that another"),
        ({"value": "soft"}, {}, "value of the probe is 'soft', but the training's is 'max'"),
        ({}, {"centre": "none"}, "centre of the probe is 'mean', but the training's is 'none'"),
    ],
)
def test_a_probe_that_cannot_measure_it_is_refused(
    tmp_path: Path, options: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        AutoEstimator(trainer(tmp_path, **settings), probe(**options))


def test_two_processes_come_to_the_same_choice(tmp_path: Path) -> None:
    """They take the steps of one process with the first one's choices; what they choose by themselves is the same."""
    both = results(auto_worker.main, tmp_path)
    one = auto_worker.trained(tmp_path / "one", 4, auto_worker.Prescribed)
    for found in both:
        assert found["prescribed"]["names"] == one["names"] == auto_worker.STEPS
        torch.testing.assert_close(found["prescribed"]["weights"], one["weights"], rtol=1e-4, atol=1e-6)
    assert both[0]["chosen"]["names"] == both[1]["chosen"]["names"]
    assert len(both[0]["chosen"]["names"]) == 3
    assert torch.equal(both[0]["chosen"]["weights"], both[1]["chosen"]["weights"])
