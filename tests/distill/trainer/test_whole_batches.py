"""dataloader_drop_last: too few rows are refused, and evaluation scores every row all the same."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kvar.distill import DistillationConfig, DistillationTrainer, build_dataset, build_model
from kvar.distill.data.whole_batches import check_whole_batches, rows_together
from kvar.tasks import ArithmeticTask

SIZES = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 160}


def trainer(folder: Path, rows: int, **settings: Any) -> DistillationTrainer:
    task = ArithmeticTask(1, 1)
    tokenizer = task.build_tokenizer()
    data = build_dataset(task.examples("train", 5), tokenizer)
    config = DistillationConfig(
        output_dir=str(folder), objective="sft", use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True,
        dataloader_drop_last=True, max_new_tokens=32, **settings,
    )  # fmt: skip
    model = build_model(SIZES, tokenizer)
    train = data.select(range(rows))
    return DistillationTrainer(model, config, train_dataset=train, eval_dataset=data, processing_class=tokenizer)


def test_rows_that_fill_no_batch_are_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"the 3 training rows do not fill one batch of 4 \(per_device_train_batch_size 4\)"
    ):
        trainer(tmp_path, 3, per_device_train_batch_size=4)


def test_the_rest_is_left_out_of_training_and_of_no_evaluation(tmp_path: Path) -> None:
    """Five rows in batches of four: one training step an epoch; two batches of evaluation, five rows in all."""
    made = trainer(tmp_path, 5, per_device_train_batch_size=4, per_device_eval_batch_size=4, num_train_epochs=2)
    made.train()
    assert made.state.global_step == 2
    batches = [len(batch["index"]) for batch in made.get_eval_dataloader()]
    assert batches == [4, 1]
    assert made.args.dataloader_drop_last  # as it was set


def test_rows_of_several_processes() -> None:
    settings = SimpleNamespace(dataloader_drop_last=True, per_device_train_batch_size=4)
    assert rows_together(SimpleNamespace(num_processes=3, split_batches=False), 4) == 12
    assert rows_together(SimpleNamespace(num_processes=3, split_batches=True), 4) == 4
    with pytest.raises(ValueError, match="the 11 training rows do not fill one batch of 12"):
        check_whole_batches(range(11), settings, 12)
    check_whole_batches(range(12), settings, 12)
    check_whole_batches(iter(range(3)), settings, 12)  # a stream, whose length nobody knows
    check_whole_batches(None, settings, 12)
    check_whole_batches(range(3), SimpleNamespace(dataloader_drop_last=False), 12)
