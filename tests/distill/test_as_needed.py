"""Rows that are tokenised when a run sees them: the same rows in the same order, and no more than it sees."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from kvar.distill import DistillationConfig, DistillationTrainer, build_dataset
from kvar.distill.data.as_needed import RowsAsNeeded, rows_seen
from kvar.tasks import ArithmeticTask, Example
from tests.cases import tiny_t5

TASK = ArithmeticTask(1, 1)


@pytest.mark.filterwarnings("ignore:.*are cut")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data_seed": 5},
        {"gradient_accumulation_steps": 2},
        {"train_sampling_strategy": "sequential"},
        {"max_steps": 3, "dataloader_drop_last": True},
    ],
)
def test_the_batches_of_a_run_are_those_of_the_whole_data(changes: dict[str, Any], tmp_path: Path) -> None:
    words = TASK.build_tokenizer()
    settings = {"per_device_train_batch_size": 3, "max_steps": 2, "seed": 4, "use_cpu": True, "report_to": "none"}
    args = DistillationConfig(str(tmp_path), objective="sft", max_new_tokens=4, **{**settings, **changes})
    examples = TASK.examples("train", 40)
    made: list[Any] = []

    def build(some: Any) -> Any:
        made.extend(some)
        return build_dataset(some, words, max_target_tokens=4)

    count = args.max_steps * args.gradient_accumulation_steps
    seen = rows_seen(args, len(examples))
    assert seen is not None and len(seen) == 3 * (count + 1)  # one batch is read ahead
    batches = []
    for data in (build_dataset(examples, words, max_target_tokens=4), RowsAsNeeded(examples, build, seen)):
        student = tiny_t5(len(words))
        trainer = DistillationTrainer(student, args, train_dataset=data, processing_class=words)
        batches.append(list(islice(trainer.get_train_dataloader(), count)))
        assert len(trainer.get_train_dataloader()) == (13 if args.dataloader_drop_last else 14)
    for one, other in zip(*batches, strict=True):
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert len(made) <= 3 * (count + 1) + 1  # and the first row, by which the trainer tells ids from texts


def test_where_the_order_needs_every_length_or_every_row_is_seen_all_are_tokenised(tmp_path: Path) -> None:
    def seen(**changes: Any) -> list[int] | None:
        args = DistillationConfig(str(tmp_path), per_device_train_batch_size=4, use_cpu=True, **changes)
        return rows_seen(args, 40)

    assert seen(max_steps=9) is None and seen() is None
    assert seen(max_steps=2, train_sampling_strategy="group_by_length") is None
    assert len(seen(max_steps=8) or ()) == 36


def test_a_row_that_is_refused_is_named_by_its_number_in_the_data() -> None:
    words = TASK.build_tokenizer()
    examples = [*TASK.examples("train", 5), Example("", "1")]
    with pytest.raises(ValueError, match="row 5 of the data: .* empty"):
        RowsAsNeeded(examples, lambda some: build_dataset(some, words, max_prompt_tokens=50), [2, 5])
