"""Engines, sampling, training and memory, checked on the CPU and, by ``make gpu``, on a CUDA device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import PRECISIONS, Cell, in_precision, measured_cell
from kvar.distill import DistillationConfig, DistillationTrainer, build_dataset, build_model
from kvar.gradients import gradient_moments
from kvar.rollouts import log_probs, sample
from kvar.tasks import ArithmeticTask
from tests.cases import CASES, Size, ragged_prompts, rollouts
from tests.gradients.truth import assert_close, weights

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
TOLERANCE = {"float32": 1e-4, "bf16 autocast": 0.05, "bf16 weights": 0.05}
"""Of moments, relative to the loop's in float32 on the CPU; bfloat16 has eight bits."""
SIZE = Size(vocabulary=23, width=32, inner=48, heads=4)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", ["t5", "gpt2"])
def test_engines_are_exact(kind: str, precision: str, device: str) -> None:
    """Against the loop in float32 on the CPU, with weights that bfloat16 holds exactly."""
    model, data = CASES[kind](SIZE).bfloat16().float(), rollouts(n=4)
    w = weights(data).float()
    truth = gradient_moments(model, data, w, engine="loop")
    model.to(device)
    state = torch.cuda.get_rng_state() if device == "cuda" else torch.get_rng_state()
    with in_precision(model, precision, device):
        ours = gradient_moments(model, data.to(device), w.to(device))
    assert_close(dict(ours.groups), dict(truth.groups), TOLERANCE[precision])
    assert torch.equal(state, torch.cuda.get_rng_state() if device == "cuda" else torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", ["t5", "gpt2"])
def test_samples_have_the_probabilities_that_are_scored(kind: str, precision: str, device: str) -> None:
    model = CASES[kind](SIZE).to(device)
    with in_precision(model, precision, device), torch.no_grad():
        drawn = sample(model, ragged_prompts(), max_new_tokens=6, rollouts_per_prompt=3, seed=1)
        assert drawn.tokens.device.type == device
        again = sample(model, ragged_prompts(), max_new_tokens=6, rollouts_per_prompt=3, seed=1)
        assert torch.equal(drawn.tokens, again.tokens)
        scored = log_probs(model, drawn)
    assert float((drawn.log_probs - scored.float()).abs().max()) < (1e-4 if precision == "float32" else 0.1)


@pytest.mark.parametrize("device", DEVICES)
def test_a_resumed_training_ends_where_an_uninterrupted_one_does(device: str, tmp_path: Path) -> None:
    """Up to the order in which a card adds: the sums of an embedding's gradient are atomic."""
    task = ArithmeticTask(1, 1)
    tokenizer: Any = task.build_tokenizer()
    config = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 96, "bos_token_id": 1}

    def trained(folder: Path, steps: int, resume: bool = False) -> torch.Tensor:
        student, teacher = (build_model(config, tokenizer, seed=seed) for seed in (0, 1))
        args = DistillationConfig(
            output_dir=str(folder), use_cpu=device == "cpu", report_to="none", disable_tqdm=True, save_steps=2,
            max_steps=steps, per_device_train_batch_size=2, max_new_tokens=8, objective="llmr", learning_rate=1e-3,
            lr_scheduler_type="constant",
        )  # fmt: skip
        trainer = DistillationTrainer(
            student, args, teacher=teacher, processing_class=tokenizer,
            train_dataset=build_dataset(task.examples("train", 8), tokenizer),
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=resume)
        assert next(student.parameters()).device.type == device
        return torch.cat([p.detach().flatten().cpu() for p in student.parameters()])

    whole = trained(tmp_path / "whole", 4)
    trained(tmp_path / "parts", 2)
    parts = trained(tmp_path / "parts", 4, resume=True)
    torch.testing.assert_close(parts, whole, rtol=0, atol=0 if device == "cpu" else 1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_a_cell_of_the_benchmark(device: str) -> None:
    """Every number is there; on a card also the memory."""
    cell = measured_cell(Cell("qwen3", "tiny", 4, 5, 6), "float32", device, rounds=1)
    assert {"plain ms", "norms", "all fields", "tokens/s"} <= cell.keys()
    assert all(cell[name] > 0 for name in ("plain ms", "norms", "all fields", "tokens/s"))
    assert ("memory norms" in cell) == (device == "cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["t5", "qwen3"])
def test_a_measurement_fits_where_training_does(kind: str) -> None:
    """At some 30 M parameters, six estimators: the peak beside AdamW's state, against a training step's."""
    cell = measured_cell(Cell(kind, "small"), "float32", "cuda", rounds=1)
    assert cell["memory norms"] < 3 and cell["memory all fields"] < 4
