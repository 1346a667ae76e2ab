"""The trainer: it learns, resumes bit for bit, and refuses what cannot work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, TrainerCallback

from kvar.distill import DistillationConfig, DistillationTrainer, build_dataset, build_model, decode, evaluate
from kvar.rollouts import Rollouts
from kvar.tasks import ArithmeticTask

TASK = ArithmeticTask(1, 1)
T5 = {
    "model_type": "t5", "d_model": 16, "d_kv": 8, "num_heads": 2, "d_ff": 32, "num_layers": 1, "num_decoder_layers": 1,
    "dropout_rate": 0.0,
}  # fmt: skip
GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 96, "bos_token_id": 1}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return TASK.build_tokenizer()


def trainer(folder: Path, tokenizer: Any, student: dict = T5, teacher: dict | None = None, **changes: Any) -> Any:
    settings = {
        "objective": "sft", "max_steps": 12, "per_device_train_batch_size": 8, "learning_rate": 1e-2,
        "max_new_tokens": 20, "save_steps": 4, "logging_steps": 4, **changes,
    }  # fmt: skip
    args = DistillationConfig(output_dir=str(folder), use_cpu=True, report_to="none", disable_tqdm=True, **settings)
    return DistillationTrainer(
        build_model(student, tokenizer),
        args,
        teacher=None if teacher is None else build_model(teacher, tokenizer, seed=1),
        train_dataset=build_dataset(TASK.examples("train", 64), tokenizer, max_target_tokens=20),
        processing_class=tokenizer,
    )


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_sft_learns(tmp_path: Path, tokenizer: Any) -> None:
    run = trainer(tmp_path, tokenizer, max_steps=60, save_strategy="no")
    run.train()
    losses = [entry["loss"] for entry in run.state.log_history if "loss" in entry]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(("student", "teacher"), [(T5, T5), (GPT2, GPT2)])
def test_ketchup_raises_the_students_return(tmp_path: Path, tokenizer: Any, student: dict, teacher: dict) -> None:
    run = trainer(
        tmp_path, tokenizer, student, teacher, objective="ketchup", kernel="K=2", baseline="batch-mean", max_steps=60,
        save_strategy="no", logging_steps=15, per_device_train_batch_size=16, max_new_tokens=8,
    )  # fmt: skip
    run.train()
    gaps = [entry["total_gap"] for entry in run.state.log_history if "total_gap" in entry]  # J = E[V_1 - total gap]
    assert gaps[-1] < 0.9 * gaps[0]


@pytest.mark.parametrize("objective", ["sft", "ketchup", "seqkd", "gkd + 0.5 js"])
def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path, tokenizer: Any, objective: str) -> None:
    changes = {
        "objective": objective, "teacher": T5, "baseline": "batch-mean", "gradient_accumulation_steps": 2,
        "per_device_train_batch_size": 2, "max_new_tokens": 6, "seqkd_beams": 0 if "js" in objective else 2,
        "max_steps": 7, "save_steps": 4,
    }  # fmt: skip
    whole = trainer(tmp_path / "whole", tokenizer, **changes)
    whole.train()
    again = trainer(tmp_path / "again", tokenizer, **changes)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    assert torch.equal(weights(whole.model), weights(again.model))


def test_checkpoints_open_with_from_pretrained(tmp_path: Path, tokenizer: Any) -> None:
    from kvar.distill import load_model, load_tokenizer

    run = trainer(tmp_path, tokenizer)
    run.train()
    folder = str(tmp_path / "checkpoint-12")
    assert torch.equal(weights(load_model(folder)), weights(run.model))
    assert load_tokenizer(folder).get_vocab() == tokenizer.get_vocab()
    assert not list(tmp_path.rglob("pytorch_model*.bin"))  # safetensors only


def test_an_objective_that_needs_a_teacher_says_so(tmp_path: Path, tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="objective 'ketchup' needs a teacher"):
        trainer(tmp_path, tokenizer, objective="ketchup")


class Spoil(TrainerCallback):
    """Puts a NaN into the weights, or into the next gradient, after five steps."""

    def __init__(self, gradient: bool) -> None:
        self.gradient = gradient

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 5:
            weight = next(kwargs["model"].parameters())
            if self.gradient:
                weight.register_hook(lambda g: g * float("nan"))
            else:
                weight.data.fill_(float("nan"))


@pytest.mark.parametrize(("gradient", "what"), [(False, "loss is nan"), (True, "the gradient's norm is nan")])
def test_what_is_not_finite_stops_the_training(tmp_path: Path, tokenizer: Any, gradient: bool, what: str) -> None:
    """Step and prompts are named, and the last checkpoint is whole: no step is taken along a NaN."""
    from kvar.distill import load_model

    run = trainer(tmp_path, tokenizer, gradient_accumulation_steps=2)
    run.add_callback(Spoil(gradient))
    with pytest.raises(ValueError, match=what + r" at step 5; training stops(.|\n)*\n  \d+: [A-Z][a-z]+ has") as error:
        run.train()
    assert ("and 8 more" in str(error.value)) == gradient  # the whole step's sixteen, or the one micro-batch's eight
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-4"]
    assert bool(weights(load_model(str(tmp_path / "checkpoint-4"))).isfinite().all())


def test_logits_that_are_not_finite_stop_the_sampling_and_name_step_and_prompts(tmp_path: Path, tokenizer: Any) -> None:
    run = trainer(tmp_path, tokenizer, T5, T5, objective="ketchup", baseline="batch-mean", max_new_tokens=6)
    run.add_callback(Spoil(gradient=False))
    with pytest.raises(ValueError, match=r"sampled at step 5; training stops(.|\n)*\n  \d+: [A-Z][a-z]+ has"):
        run.train()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-4"]


def test_a_teacher_or_tokenizer_without_end_of_sequence_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    from copy import deepcopy

    args = DistillationConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    student, teacher = build_model(T5, tokenizer), build_model(T5, tokenizer, seed=1)
    endless = deepcopy(tokenizer)
    endless.eos_token = None
    with pytest.raises(ValueError, match="tokenizer has no end-of-sequence token"):
        DistillationTrainer(student, args, teacher=teacher, processing_class=endless)
    teacher.config.eos_token_id = teacher.generation_config.eos_token_id = None
    with pytest.raises(ValueError, match="teacher has no end-of-sequence token"):
        DistillationTrainer(student, args, teacher=teacher, processing_class=tokenizer)
    with pytest.raises(ValueError, match="processing_class must be a tokenizer; got NoneType"):
        DistillationTrainer(student, args, teacher=teacher)


def test_prompts_longer_than_the_model_are_refused(tmp_path: Path, tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=r"the prompt of row \d+ of train_dataset has .* 96 positions of the student"):
        trainer(tmp_path, tokenizer, student=GPT2, max_new_tokens=90)


class Hearer(TrainerCallback):
    """Counts what the trainer hands over, and the student's training passes seen by then."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, int, int]] = []
        self.passes = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        kwargs["model"].register_forward_pre_hook(lambda module, *_: self._pass(module))

    def _pass(self, module: Any) -> None:
        self.passes += int(module.training and torch.is_grad_enabled())

    def on_rollouts(self, rollouts: Any, values: Any) -> None:
        assert rollouts.tokens.shape == values.q.shape
        self.heard.append((len(rollouts), len(rollouts.prompt_index.unique()), self.passes))


def test_callbacks_hear_of_rollouts_right_after_the_students_pass_over_them(tmp_path: Path, tokenizer: Any) -> None:
    run = trainer(
        tmp_path, tokenizer, teacher=T5, objective="sft + ketchup", rollouts_per_prompt=2, max_steps=1,
        gradient_accumulation_steps=2, per_device_train_batch_size=4, max_new_tokens=5, save_strategy="no",
    )  # fmt: skip
    hearer = Hearer()
    run.add_callback(hearer)
    run.train()
    assert hearer.heard == [(8, 4, 2), (8, 4, 4)]  # sft's pass, ketchup's, of either micro-batch


def test_logs_of_a_mixture(tmp_path: Path, tokenizer: Any) -> None:
    run = trainer(
        tmp_path, tokenizer, teacher=T5, objective="ketchup + 0.1 sft", baseline="minimum-variance", max_steps=2,
        logging_steps=1, max_new_tokens=5, save_strategy="no",
    )  # fmt: skip
    run.train()
    entry = next(entry for entry in run.state.log_history if "loss" in entry)
    assert {"return", "total_gap", "response_length", "finished", "entropy", "loss_sft", "loss_ketchup"} <= set(entry)
    assert entry["loss"] == pytest.approx(entry["loss_ketchup"] + 0.1 * entry["loss_sft"], rel=1e-3)


@pytest.mark.parametrize("config", [T5, GPT2])
def test_decode_keeps_the_order_and_the_generation_config(tokenizer: Any, config: dict) -> None:
    model = build_model(config, tokenizer).train()
    kept = model.generation_config
    prompts = [e.prompt for e in TASK.examples("test", 7)]
    together = decode(model, prompts, tokenizer, max_new_tokens=6, batch=3)
    assert together == [decode(model, [p], tokenizer, max_new_tokens=6)[0] for p in prompts]
    assert model.generation_config is kept and model.training


def test_evaluate_scores_with_the_tasks_metric(tokenizer: Any) -> None:
    examples = TASK.examples("test", 5)
    result = evaluate(build_model(T5, tokenizer), TASK, examples, tokenizer, max_new_tokens=6)
    assert result.metrics["exact_answer"] == 0.0 and len(result.texts) == 5
    with pytest.raises(ValueError, match="prompts is empty"):
        evaluate(build_model(T5, tokenizer), TASK, [], tokenizer, max_new_tokens=6)


def test_dataset_refuses_bad_rows(tokenizer: Any) -> None:
    from kvar.tasks import Example

    with pytest.raises(ValueError, match="the data set is empty"):
        build_dataset([], tokenizer)
    with pytest.raises(ValueError, match="example 1 has an empty prompt"):
        build_dataset([TASK.examples("train", 1)[0], Example("", "x")], tokenizer)
    with pytest.raises(ValueError, match="more than max_prompt_tokens=3"):
        build_dataset(TASK.examples("train", 2), tokenizer, max_prompt_tokens=3)


def test_model_configs_are_checked(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="must name a model_type"):
        build_model({"d_model": 16}, tokenizer)
    with pytest.raises(ValueError, match="model_type 't6' is unknown to transformers; t5, gpt2 and") as error:
        build_model({"model_type": "t6"}, tokenizer)
    assert len(str(error.value)) < 150  # not the list of all
    with pytest.raises(ValueError, match="'lama' is unknown to transformers; did you mean llama or "):
        build_model({"model_type": "lama"}, tokenizer)
    with pytest.raises(ValueError, match=r"student_config of 't5' is refused .*d_model.*int.*str"):
        build_model({"model_type": "t5", "d_model": "many"}, tokenizer)


def test_a_student_keeps_its_teachers_constraints(tmp_path: Path, tokenizer: Any) -> None:
    """The teacher ends in two ways and never writes one token; so does the student, in training and once saved."""
    made = trainer(tmp_path, tokenizer, T5, T5, objective="llmr", max_steps=1, max_new_tokens=6)
    config = made.teacher.generation_config
    eos, other, never = tokenizer.eos_token_id, 5, 6
    config.eos_token_id, config.suppress_tokens = [eos, other], [never]
    student = made.model
    again = DistillationTrainer(
        student, made.args, teacher=made.teacher, train_dataset=made.train_dataset, processing_class=tokenizer
    )
    seen: list[Rollouts] = []

    class Listener(TrainerCallback):
        def on_rollouts(self, rollouts: Rollouts, values: Any) -> None:
            seen.append(rollouts)

    again.add_callback(Listener())
    again.train()
    (rollouts,) = seen
    assert rollouts.policy is not None and set(rollouts.policy.ends) == {eos, other}
    assert never not in rollouts.tokens[rollouts.mask].tolist()
    ends = torch.isin(rollouts.tokens, torch.tensor([eos, other])) & rollouts.mask
    assert bool((ends.sum(dim=1) <= 1).all()) and bool((ends.any(dim=1) == rollouts.finished).all())
    student.save_pretrained(tmp_path / "saved")
    kept = GenerationConfig.from_pretrained(tmp_path / "saved")
    assert sorted(kept.eos_token_id) == sorted([eos, other]) and never in kept.suppress_tokens
