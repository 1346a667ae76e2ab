"""What every task offers: examples by split, a metric over generated text, and a small tokenizer of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["Example", "Task", "task_from_options"]

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Example:
    """One prompt and its reference response, as text."""

    prompt: str
    target: str


class Task(Protocol):
    """A source of prompts with references, a metric, and a way to build a tokenizer for models trained from scratch."""

    name: str

    def examples(self, split: str, limit: int | None = None) -> list[Example]:
        """The examples of ``split`` ("train", "validation" or "test"), the first ``limit`` of them where given."""

    def metrics(self, predictions: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
        """Scores of generated texts against the examples' targets, name -> value."""

    def build_tokenizer(self) -> PreTrainedTokenizerFast:
        """A tokenizer made from the task's own training text, with pad and end-of-sequence tokens."""


def task_from_options(
    name: str,
    *,
    data: str | None = None,
    source_field: str | None = None,
    target_field: str | None = None,
    prefix: str | None = None,
    vocabulary: int = 4000,
    difficulty: tuple[int, int] = (2, 4),
    seed: int = 0,
    held_out: int | None = None,
) -> Task:
    """The task called ``name``, set up from the flat options of a config file.

    Args:
        name: "arithmetic" (generated, needs no data), "translation" or "text".
        data: folder or hub name with the data (not for arithmetic).
        source_field: the rows' field that holds the prompt.
        target_field: the rows' field that holds the reference.
        prefix: text put in front of every prompt; None takes the task's own default.
        vocabulary: size of the tokenizer built from the training text.
        difficulty: least and most steps of an arithmetic problem.
        seed: the arithmetic problems' seed.
        held_out: rows at the end of train to use as validation where the data has no validation split.

    Raises:
        ValueError: an unknown name, or a task that needs ``data`` without it.
    """
    from kvar.tasks.arithmetic import ArithmeticTask
    from kvar.tasks.text import TextTask
    from kvar.tasks.translation import TranslationTask

    if name == "arithmetic":
        return ArithmeticTask(min_steps=difficulty[0], max_steps=difficulty[1], seed=seed)
    kinds: dict[str, type[TextTask]] = {"translation": TranslationTask, "text": TextTask}
    if name not in kinds:
        raise ValueError(f"task {name!r} is unknown; choose one of: arithmetic, {', '.join(kinds)}.")
    if not data:
        raise ValueError(f"task {name!r} needs data: a folder with train/validation/test files, or a hub name.")
    if not source_field or not target_field:
        raise ValueError(f"task {name!r} needs source_field and target_field: the rows' fields to read and to write.")
    return kinds[name](data, source_field, target_field, prefix=prefix, vocabulary=vocabulary, held_out=held_out)
