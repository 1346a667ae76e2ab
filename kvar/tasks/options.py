"""A task from the flat options of a config file."""

from __future__ import annotations

from kvar.tasks.arithmetic import ArithmeticTask
from kvar.tasks.base import Task
from kvar.tasks.text import TextTask
from kvar.tasks.translation import TranslationTask

__all__ = ["task_from_options"]


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
