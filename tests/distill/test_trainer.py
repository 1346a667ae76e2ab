"""The trainer: it learns, resumes bit for bit, and refuses what cannot work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kvar.distill import DistillationConfig, DistillationTrainer, build_dataset, build_model, decode, evaluate
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


@pytest.mark.parametrize("objective", ["sft", "ketchup"])
def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path, tokenizer: Any, objective: str) -> None:
    changes = {"objective": objective, "teacher": T5, "baseline": "batch-mean"}
    whole = trainer(tmp_path / "whole", tokenizer, **changes)
    whole.train()
    again = trainer(tmp_path / "again", tokenizer, **changes)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-8"))
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


def test_nan_loss_stops_and_names_step_and_examples(tmp_path: Path, tokenizer: Any) -> None:
    run = trainer(tmp_path, tokenizer)
    with torch.no_grad():
        next(run.model.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match=r"loss is nan at step 0 on examples \[\d+"):
        run.train()


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
    with pytest.raises(ValueError, match="'t6' is unknown"):
        build_model({"model_type": "t6"}, tokenizer)
