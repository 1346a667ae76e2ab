"""The mean of "trained" is the gradient that each of TRL's trainers takes, micro-batches accumulated or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kvar.distill import DistillationConfig, DistillationTrainer, build_dataset, build_model
from kvar.tasks import ArithmeticTask
from tests.hooks.batch import trainers
from tests.hooks.batch.gradients import trained_is_the_gradient
from tests.hooks.batch.trainers import model

pytest.importorskip("trl")

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "grpo": ("grpo", {}),
    "grpo dr_grpo clipped, KL, two iterations": (
        "grpo",
        {"loss_type": "dr_grpo", "num_iterations": 2, "beta": 0.1, "epsilon": 0.05, "max_steps": 3},
    ),
    "grpo by sequence at a temperature": (
        "grpo",
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "temperature": 0.7},
    ),
    "grpo with an entropy bonus, checkpointing": (
        "grpo",
        {"entropy_coef": 0.1, "gradient_accumulation_steps": 1, "gradient_checkpointing": True},
    ),
    "rloo": ("rloo", {"num_iterations": 2, "max_steps": 3}),
    "distillation": ("distillation", {}),
    "distillation JSD at a temperature": ("distillation", {"beta": 0.3, "temperature": 1.5}),
    "distillation forward KL": ("distillation", {"beta": 0.0, "gradient_accumulation_steps": 1}),
    "gkd": ("gkd", {}),
    "gkd on the data": ("gkd", {"lmbda": 0.0, "gradient_accumulation_steps": 1}),
    "iw-opd": ("iw_opd", {}),
    "iw-opd top-1 divergence": ("iw_opd", {"distillation_objective": "jsd", "temperature": 0.8}),
    "sdft": ("sdft", {}),
    "sdft sampled, two iterations": (
        "sdft",
        {"distillation_mode": "sampled_token", "distillation_alpha": 1.0, "num_iterations": 2, "max_steps": 3},
    ),
    "sdft whole vocabulary, clipped, at a temperature": (
        "sdft",
        {
            "distillation_mode": "full_logits",
            "distillation_is_clip": 1.01,
            "num_iterations": 2,
            "max_steps": 3,
            "temperature": 1.3,
        },
    ),
    "sdft tail, the first tokens left out": ("sdft", {"distillation_add_tail": True, "num_loss_tokens_to_skip": 2}),
    "sdpo": ("sdpo", {}),
    "sdpo by sequence, two iterations": (
        "sdpo",
        {"importance_sampling_level": "sequence", "loss_type": "grpo", "num_iterations": 2, "max_steps": 3},
    ),
    "sdpo sampled, dapo, at a temperature": (
        "sdpo",
        {"distillation_mode": "sampled_token", "distillation_alpha": 1.0, "loss_type": "dapo", "temperature": 0.8},
    ),
    "sdpo policy alone": ("sdpo", {"distillation_weight": 0.0, "loss_type": "grpo"}),
}
COMMON = {"grpo": "score", "rloo": "score", "distillation": "kl immediate exact", "sdpo": "score"}


@pytest.mark.parametrize("case", CASES)
def test_the_mean_of_trained_is_the_gradient_taken(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, changes = CASES[case]
    student = model(1)
    trainer = getattr(trainers, make)(tmp_path, student, **changes)
    trained_is_the_gradient(trainer, student, COMMON.get(make, "kl immediate"), monkeypatch)


def _first(mask: torch.Tensor, seen: torch.Tensor) -> None:
    mask[:, 0] = 0


def _last(mask: torch.Tensor, seen: torch.Tensor) -> None:
    for row, length in enumerate(seen.sum(dim=1).tolist()):
        mask[row, max(length - 1, 1) :] = 0


@pytest.mark.parametrize("given", [_first, _last])
def test_tokens_that_were_given_before_or_after_a_response_are_no_part_of_it(
    given: Callable[[torch.Tensor, torch.Tensor], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tool mask within a response is refused; at its ends it leaves tokens out, in the loss and here."""
    student = model(1)
    trainer = trainers.grpo(tmp_path, student)
    prepare = trainer._prepare_inputs

    def prepared(batch: Any) -> dict[str, Any]:
        inputs = dict(prepare(batch))
        inputs["tool_mask"] = torch.ones_like(inputs["completion_mask"])
        given(inputs["tool_mask"], inputs["completion_mask"])
        return inputs

    monkeypatch.setattr(trainer, "_prepare_inputs", prepared)
    trained_is_the_gradient(trainer, student, "score", monkeypatch)


OWN: dict[str, dict[str, Any]] = {
    "policy gradient": {"objective": "ketchup", "kernel": "K=2", "baseline": "batch-mean", "rollouts_per_prompt": 2},
    "exact sums": {"objective": "policy-gradient", "estimator": "kl immediate exact"},
    "the data's likelihood": {"objective": "sft"},
}


@pytest.mark.parametrize("case", OWN)
def test_the_mean_of_trained_is_the_gradient_of_kvars_trainer(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = ArithmeticTask(1, 1)
    words = task.build_tokenizer()
    size = {"d_model": 16, "d_kv": 8, "num_heads": 2, "d_ff": 32, "num_layers": 1, "num_decoder_layers": 1}
    student, teacher = (
        build_model({"model_type": "t5", "dropout_rate": 0.0, **size}, words, seed=seed) for seed in (0, 1)
    )
    changes = {"max_new_tokens": 6, "normalisation": "token-mean", **OWN[case]}
    trainer = DistillationTrainer(
        student,
        DistillationConfig(**trainers.settings(tmp_path, **changes)),
        teacher=None if case == "the data's likelihood" else teacher,
        train_dataset=build_dataset(task.examples("train", 16), words, max_target_tokens=6),
        processing_class=words,
    )
    given = teacher if case == "the data's likelihood" else None
    trained_is_the_gradient(trainer, student, "K=2, kl immediate exact", monkeypatch, teacher=given)
