"""An adaptive training with a prescribed change, on one process or two, and one that chooses by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from kvar.analysis.optimal.choose import Choice
from kvar.distill import DistillationConfig, DistillationTrainer, build_dataset, build_model
from kvar.hooks import AutoEstimator, GradientProbe
from kvar.intervals.interval import Interval
from kvar.tasks import ArithmeticTask

TASK = ArithmeticTask(1, 1)
T5 = {
    "model_type": "t5", "d_model": 8, "d_kv": 4, "num_heads": 2, "d_ff": 8, "num_layers": 1, "num_decoder_layers": 1,
    "dropout_rate": 0.0,
}  # fmt: skip
STEPS = {0: "gap K=1 exact expected - position-mean", 1: "gap window(2) exact expected - position-mean", 2: "K=1"}


class Prescribed(AutoEstimator):
    """Chooses what STEPS says, on the first process; no other is asked."""

    def chosen(self, measurement: Any, current: str) -> Choice:
        assert not dist.is_initialized() or dist.get_rank() == 0
        return Choice(STEPS[measurement.step], True, Interval(0.5, 0.25, 0.75, 4), {}, "it is prescribed")


def trained(folder: Path, batch: int, chooser: type[AutoEstimator], **changes: Any) -> dict[str, Any]:
    tokenizer = TASK.build_tokenizer()
    args = DistillationConfig(
        output_dir=str(folder), use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no", max_steps=3,
        per_device_train_batch_size=batch, max_new_tokens=6, learning_rate=0.05, optim="sgd",
        objective="policy-gradient", estimator="auto", auto_every=1, **changes,
    )  # fmt: skip
    train, held_out = build_dataset(TASK.examples("train", 12), tokenizer), TASK.examples("validation", 10)
    student, teacher = (build_model(T5, tokenizer, seed=seed) for seed in (0, 1))
    trainer = DistillationTrainer(student, args, teacher=teacher, train_dataset=train, processing_class=tokenizer)
    probe = GradientProbe(
        [example.prompt for example in held_out], "K=1", teacher=teacher, rollouts_per_prompt=2, max_new_tokens=6,
        references=[example.target for example in held_out],
    )  # fmt: skip
    chosen = chooser(trainer, probe)
    trainer.train()
    names = {step: choice.name for step, choice in chosen.choices.items()}
    return {"weights": torch.cat([p.detach().flatten() for p in student.parameters()]), "names": names}


def main(folder: Path) -> None:
    """Both trainings, into FOLDER/RANK.pt."""
    dist.init_process_group("gloo")
    options = {"ddp_backend": "gloo"}
    found = {
        "prescribed": trained(folder / "prescribed", 2, Prescribed, **options),
        "chosen": trained(
            folder / "chosen",
            2,
            AutoEstimator,
            auto_target="data",
            auto_confidence=0,
            auto_candidates="fitted",
            **options,
        ),
    }
    torch.save(found, folder / f"{dist.get_rank()}.pt")
    dist.destroy_process_group()
