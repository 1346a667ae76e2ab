"""The mean of "trained" is the gradient that each of TRL's trainers takes, micro-batches accumulated or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

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
    "sdpo": ("sdpo", {}),
    "sdpo policy alone": ("sdpo", {"distillation_weight": 0.0, "loss_type": "grpo"}),
}
COMMON = {"grpo": "score", "rloo": "score", "distillation": "kl immediate exact", "sdpo": "score"}


@pytest.mark.parametrize("case", CASES)
def test_the_mean_of_trained_is_the_gradient_taken(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, changes = CASES[case]
    student = model(1)
    trainer = getattr(trainers, make)(tmp_path, student, **changes)
    trained_is_the_gradient(trainer, student, COMMON.get(make, "kl immediate"), monkeypatch)


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
