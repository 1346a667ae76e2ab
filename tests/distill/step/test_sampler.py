"""Training on responses that a sampler draws, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kvar.distill import DistillationConfig, DistillationTrainer, build_dataset, build_model
from kvar.rollouts import policy_of, sample
from kvar.tasks import ArithmeticTask

TASK = ArithmeticTask(1, 1)
SIZE = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 96}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return TASK.build_tokenizer()


def trainer(folder: Path, tokenizer: Any, draws: Any = None, known: bool = True, **changes: Any) -> Any:
    """A trainer whose sampler is ``draws``, or the student as it is; ``known``: it gives log-probabilities."""
    model = build_model(SIZE, tokenizer, seed=0)
    drawing = model if draws is None else draws
    policy = policy_of(drawing, tokenizer)

    def sampler(prompts: list, n: int, max_new_tokens: int, seed: int) -> tuple:
        drawn = sample(
            drawing, prompts, rollouts_per_prompt=n, max_new_tokens=max_new_tokens, seed=seed, policy=policy
        )  # fmt: skip
        ids, log_probs = (
            [row[kept].tolist() for row, kept in zip(x, drawn.mask, strict=True)]
            for x in (drawn.tokens, drawn.log_probs)
        )
        return ids, log_probs if known else None

    settings = {
        "objective": "policy-gradient", "estimator": "kl 1", "max_steps": 3, "per_device_train_batch_size": 4,
        "learning_rate": 1e-2, "max_new_tokens": 4, "save_strategy": "no", "logging_steps": 1, **changes,
    }  # fmt: skip
    args = DistillationConfig(output_dir=str(folder), use_cpu=True, report_to="none", disable_tqdm=True, **settings)
    return DistillationTrainer(
        model, args, teacher=build_model(SIZE, tokenizer, seed=1), sampler=sampler,
        train_dataset=build_dataset(TASK.examples("train", 16), tokenizer, max_target_tokens=4),
        processing_class=tokenizer,
    )  # fmt: skip


def test_it_trains_on_the_samplers_responses(tmp_path: Path, tokenizer: Any) -> None:
    run = trainer(tmp_path, tokenizer)
    before = [p.detach().clone() for p in run.model.parameters()]
    run.train()
    assert any(not torch.equal(old, new) for old, new in zip(before, run.model.parameters(), strict=True))
    assert all("response_length" in entry for entry in run.state.log_history[:3])


def test_an_engine_that_lags_needs_a_correction(tmp_path: Path, tokenizer: Any) -> None:
    other = build_model(SIZE, tokenizer, seed=2)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(4)
    with pytest.raises(ValueError, match="differ from this student's by .*train by an estimator with a correction"):
        trainer(tmp_path, tokenizer, other).train()
    trainer(tmp_path, tokenizer, other, estimator="kl 1 ratio").train()
    trainer(tmp_path, tokenizer, other, objective="llmr", estimator=None).train()  # importance_weight behaviour
    with pytest.raises(ValueError, match="differ from this student's by"):
        trainer(tmp_path, tokenizer, other, objective="llmr", estimator=None, importance_weight="none").train()
    with pytest.raises(ValueError, match="stale rollouts need log-probabilities"):
        trainer(tmp_path, tokenizer, known=False, objective="llmr", estimator=None).train()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"sampler": "http://host:1", "temperature": 0.5},
            "draws at temperature 1 from all tokens; got temperature 0.5",
        ),
        ({"sampler": "http://host:1", "top_k": 5}, "top_k 5"),
        ({"sampler_model": "x"}, "sampler_model is 'x', but there is no sampler"),
    ],
)
def test_settings_that_contradict(tmp_path: Path, tokenizer: Any, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, tokenizer, **changes)
