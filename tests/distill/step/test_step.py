"""A step's gradient does not depend on how the step is cut into micro-batches."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from transformers import Trainer, TrainerCallback

from kvar.distill import DistillationConfig, DistillationTrainer, build_dataset, build_model
from kvar.distill.step.responses import on_policy_coin
from kvar.distill.trainer import TESTED, check_version
from kvar.tasks import ArithmeticTask

TASK = ArithmeticTask(1, 1)
TOKENIZER: Any = TASK.build_tokenizer()
GPT2 = {
    "model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 96, "bos_token_id": 1,
    "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
}  # fmt: skip
T5 = {
    "model_type": "t5", "d_model": 16, "d_kv": 8, "num_heads": 2, "d_ff": 32, "num_layers": 1, "num_decoder_layers": 1,
    "dropout_rate": 0.0,
}  # fmt: skip
DATA = build_dataset(TASK.examples("train", 8), TOKENIZER, max_target_tokens=12)


class Gradient(TrainerCallback):
    """Keeps the gradient that the optimiser is about to use."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.found = torch.cat([p.grad.flatten() for p in kwargs["model"].parameters()])


def step(folder: Path, family: dict, rows: int, dtype: torch.dtype, **changes: Any) -> tuple[torch.Tensor, float, Any]:
    """Gradient and logged loss of one step over eight examples, ``rows`` at a time."""
    args = DistillationConfig(
        output_dir=str(folder), use_cpu=True, report_to="none", disable_tqdm=True, max_steps=1, save_strategy="no",
        per_device_train_batch_size=rows, gradient_accumulation_steps=8 // rows, max_grad_norm=0.0, max_new_tokens=12,
        logging_steps=1, seqkd_beams=2, **changes,
    )  # fmt: skip
    gradient = Gradient()
    student, teacher = (build_model(family, TOKENIZER, seed=seed).to(dtype) for seed in (0, 1))
    if family is GPT2:
        with torch.no_grad():  # such that responses end at different places
            for model in (student, teacher):
                model.transformer.ln_f.bias.fill_(1.0)
                model.get_output_embeddings().weight[TOKENIZER.eos_token_id] += 0.15
    trainer = DistillationTrainer(
        student, args, teacher=teacher, train_dataset=DATA, processing_class=TOKENIZER, callbacks=[gradient]
    )
    trainer.train()
    loss = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    return gradient.found, loss, trainer


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": "ketchup", "baseline": "batch-mean"},
        {"objective": "ketchup", "baseline": "position-mean", "normalisation": "sequence-mean"},
        {"objective": "ketchup", "baseline": "minimum-variance", "normalisation": "sequence-token-mean"},
        {"objective": "llmr", "baseline": "leave-one-out", "rollouts_per_prompt": 2, "entropy_weight": 0.1},
        {"objective": "js + 0.1 sft"},
        {"objective": "gkd", "gkd_lambda": 1.0, "sample_micro_batch": 3},
        {"objective": "seqkd + kl", "normalisation": "sequence-token-mean"},
    ],
    ids=lambda changes: "-".join(str(value) for value in changes.values()).replace(" ", ""),
)
def test_one_batch_of_eight_and_four_of_two_give_one_gradient(tmp_path: Path, changes: dict) -> None:
    whole, loss, _ = step(tmp_path / "whole", GPT2, 8, torch.float64, **changes)
    parts, sum_of_parts, _ = step(tmp_path / "parts", GPT2, 2, torch.float64, **changes)
    assert float(whole.norm()) > 1e-6
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-12 * max(1.0, float(whole.norm())))
    assert sum_of_parts == pytest.approx(loss, rel=1e-5, abs=1e-6)  # logged in float32


@pytest.mark.parametrize("family", [T5, GPT2], ids=["t5", "gpt2"])
def test_in_float32_too(tmp_path: Path, family: dict) -> None:
    changes = {"objective": "ketchup + 0.1 sft", "baseline": "batch-mean"}
    whole, _, _ = step(tmp_path / "whole", family, 8, torch.float32, **changes)
    parts, _, _ = step(tmp_path / "parts", family, 2, torch.float32, **changes)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-6 * max(1.0, float(whole.norm())))


def test_a_mean_of_micro_batches_means_would_be_another_gradient(tmp_path: Path) -> None:
    """That the above can fail: the responses' lengths differ between micro-batches."""
    changes = {"objective": "ketchup"}
    whole, _, _ = step(tmp_path / "whole", GPT2, 8, torch.float64, **changes)
    # A step of one example each, token means averaged: what transformers does to a loss of each micro-batch's own.
    averaged, _, _ = step(tmp_path / "mean", GPT2, 1, torch.float64, normalisation="sequence-token-mean", **changes)
    assert float((averaged - whole).norm()) > 1e-3 * float(whole.norm())


def unread(monkeypatch: pytest.MonkeyPatch, attribute: str, kind: type = Trainer, value: Any = None) -> None:
    """From now on a class takes no notice of what an attribute is set to, as versions do that do not know it."""
    monkeypatch.setattr(kind, attribute, property(lambda self: value, lambda self, _: None), raising=False)


def test_every_version_of_transformers_adds_the_micro_batches_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those before 5.19 do not read ``loss_is_scaled_for_ga``, and their rule is what the newer fall back to."""
    whole, loss, _ = step(tmp_path / "whole", GPT2, 8, torch.float64, objective="ketchup")
    unread(monkeypatch, "loss_is_scaled_for_ga")
    parts, sum_of_parts, _ = step(tmp_path / "parts", GPT2, 2, torch.float64, objective="ketchup")
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-12 * max(1.0, float(whole.norm())))
    assert sum_of_parts == pytest.approx(loss, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("divides", ["trainer", "accelerate"])
def test_a_version_that_averages_the_micro_batches_is_refused(
    divides: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if divides == "trainer":
        for attribute in ("loss_is_scaled_for_ga", "compute_loss_func"):
            unread(monkeypatch, attribute)
    else:  # as with transformers 5.3
        unread(monkeypatch, "gradient_accumulation_steps", Accelerator, 4)
    with pytest.raises(RuntimeError, match=r"divides a micro-batch's loss.* set gradient_accumulation_steps 1, or"):
        step(tmp_path / "parts", GPT2, 2, torch.float64, objective="ketchup")


def test_a_loss_of_ones_own_is_refused(tmp_path: Path) -> None:
    args = DistillationConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none", objective="sft")
    with pytest.raises(ValueError, match="compute_loss_func is given, but the loss is that of args.objective"):
        DistillationTrainer(
            build_model(T5, TOKENIZER), args, train_dataset=DATA, processing_class=TOKENIZER, compute_loss_func=print
        )


def test_an_order_that_transformers_does_not_know_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="'shuffled' is unknown to this version of transformers; choose one of: random"
    ):
        DistillationConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none", train_sampling_strategy="shuffled")


def test_the_oldest_version_is_that_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert any(line.startswith(f"transformers>={TESTED[0]},") for line in project["dependencies"])
    check_version(f"{TESTED[0]}.0")
    for version in ("5.9.1", "4.57.6", "5.3.0.dev0"):
        with pytest.raises(ImportError, match=rf"needs transformers {TESTED[0]} or newer; {version} is installed"):
            check_version(version)


def test_the_last_step_of_an_epoch_may_be_short(tmp_path: Path) -> None:
    """Eight examples, batches of three, two to a step: 3 + 3, then 2."""
    args = DistillationConfig(
        output_dir=str(tmp_path), use_cpu=True, report_to="none", disable_tqdm=True, num_train_epochs=2,
        save_strategy="no", per_device_train_batch_size=3, gradient_accumulation_steps=2, max_new_tokens=6,
        objective="ketchup", baseline="batch-mean",
    )  # fmt: skip
    student, teacher = (build_model(GPT2, TOKENIZER, seed=seed) for seed in (0, 1))
    trainer = DistillationTrainer(student, args, teacher=teacher, train_dataset=DATA, processing_class=TOKENIZER)
    assert trainer.train().global_step == 4


def test_gkds_coin() -> None:
    tosses = [on_policy_coin(3, step, 0.3) for step in range(2000)]
    assert tosses == [on_policy_coin(3, step, 0.3) for step in range(2000)]
    assert sum(tosses) / 2000 == pytest.approx(0.3, abs=0.04)
    assert not any(on_policy_coin(3, step, 0.0) for step in range(100))
    assert all(on_policy_coin(3, step, 1.0) for step in range(100))


def test_seqkd_decodes_every_prompt_once(tmp_path: Path) -> None:
    args = DistillationConfig(
        output_dir=str(tmp_path), use_cpu=True, report_to="none", disable_tqdm=True, num_train_epochs=3,
        save_strategy="no", per_device_train_batch_size=4, max_new_tokens=6, objective="seqkd", seqkd_beams=2,
    )  # fmt: skip
    student, teacher = (build_model(T5, TOKENIZER, seed=seed) for seed in (0, 1))
    trainer = DistillationTrainer(student, args, teacher=teacher, train_dataset=DATA, processing_class=TOKENIZER)
    trainer.train()
    assert trainer._teacher_responses is not None
    assert trainer._teacher_responses.decoded == 8


def test_evaluation_uses_one_random_stream(tmp_path: Path) -> None:
    _, _, trainer = step(tmp_path, GPT2, 8, torch.float32, objective="ketchup")
    losses = [trainer.evaluate(eval_dataset=DATA)["eval_loss"] for _ in range(2)]
    assert losses[0] == losses[1]
