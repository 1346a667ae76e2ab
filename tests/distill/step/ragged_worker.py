"""Trainings whose rows do not divide among processes; run for tests/distill/step/test_evened.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from kvar.distill import DistillationConfig, DistillationTrainer, build_dataset, build_model
from kvar.tasks import ArithmeticTask

TASK = ArithmeticTask(1, 1)
T5 = {
    "model_type": "t5", "d_model": 16, "d_kv": 8, "num_heads": 2, "d_ff": 32, "num_layers": 1, "num_decoder_layers": 1,
    "dropout_rate": 0.0,
}  # fmt: skip
ROWS, VALIDATION = 9, 5
CASES: dict[str, dict[str, Any]] = {
    "sft": {"objective": "sft"},
    "ketchup": {"objective": "ketchup + 0.1 sft", "baseline": "batch-mean", "normalisation": "sequence-mean"},
    "by length": {"objective": "seqkd", "train_sampling_strategy": "group_by_length"},
    "two rollouts": {"objective": "llmr", "baseline": "minimum-variance", "rollouts_per_prompt": 2},
    "estimator": {"objective": "policy-gradient", "estimator": "kl K=1 expected - position-mean"},
}
CUTS = {1: [(4, 1)], 2: [(2, 1), (1, 2)]}
"""Processes -> (batch, micro-batches a step); always four rows a step."""


def trained(folder: Path, batch: int, micro_batches: int, **changes: Any) -> dict[str, Any]:
    """Two epochs of nine rows, four a step: 4 + 4 + 1, twice; and the loss of five validation rows."""
    tokenizer = TASK.build_tokenizer()
    args = DistillationConfig(
        output_dir=str(folder), use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no",
        num_train_epochs=2, per_device_train_batch_size=batch, gradient_accumulation_steps=micro_batches,
        per_device_eval_batch_size=4 if batch == 4 else 2, max_new_tokens=8, learning_rate=0.05,
        optim="sgd", lr_scheduler_type="constant", logging_steps=1, seqkd_beams=1, **changes,
    )  # fmt: skip
    train, validation = (
        build_dataset(TASK.examples(split, size), tokenizer, max_target_tokens=8)
        for split, size in (("train", ROWS), ("validation", VALIDATION))
    )
    student, teacher = (build_model(T5, tokenizer, seed=seed) for seed in (0, 1))
    trainer = DistillationTrainer(
        student, args, teacher=teacher, train_dataset=train, eval_dataset=validation, processing_class=tokenizer
    )
    trainer.train()
    found = trainer.evaluate()["eval_loss"]
    logs = [log for log in trainer.state.log_history if "loss" in log]
    return {"weights": torch.cat([p.detach().flatten() for p in student.parameters()]), "eval": found, "logs": logs}


def main(folder: Path) -> None:
    """Every case and cut, into FOLDER/RANK.pt."""
    torch.distributed.init_process_group("gloo")
    found = {
        (name, cut): trained(folder / f"{name}{cut[0]}", *cut, ddp_backend="gloo", **changes)
        for name, changes in CASES.items()
        for cut in CUTS[2]
    }
    torch.save(found, folder / f"{torch.distributed.get_rank()}.pt")
    torch.distributed.destroy_process_group()
