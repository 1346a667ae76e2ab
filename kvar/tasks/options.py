"""Make a task from the flat options of a config file."""

from __future__ import annotations

from typing import Any

from kvar.tasks.arithmetic import ArithmeticTask
from kvar.tasks.base import Task
from kvar.tasks.gsm8k import GSM8KTask
from kvar.tasks.summarisation import SummarisationTask
from kvar.tasks.text import TextTask
from kvar.tasks.translation import TranslationTask

__all__ = ["TASKS", "task_from_options"]

KINDS: dict[str, type[TextTask]] = {
    "translation": TranslationTask,
    "summarisation": SummarisationTask,
    "gsm8k": GSM8KTask,
    "text": TextTask,
}
TASKS = ("arithmetic", *KINDS)


def task_from_options(
    name: str,
    *,
    data: str | None = None,
    subset: str | None = None,
    source_field: str | None = None,
    target_field: str | None = None,
    prefix: str | None = None,
    vocabulary: int = 4000,
    difficulty: tuple[int, int] = (2, 4),
    seed: int = 0,
    held_out: int | None = None,
    held_out_test: int | None = None,
    skip_empty: bool = False,
    stemmer: bool = True,
    rouge_tokenizer: str = "auto",
    bleu_tokenizer: str = "13a",
    calculator_marks: tuple[str, str] = ("<<", ">>"),
    max_calculations: int | None = None,
) -> Task:
    """The task called ``name``, with options as a config file has them.

    Args:
        name: "arithmetic" (generated, needs no data), "translation", "summarisation", "gsm8k" or "text".
        data: folder or hub name with the data (not for arithmetic).
        subset: subset ("config") of a hub data set that has several.
        source_field: the rows' field that holds the prompt; "question" by default for gsm8k.
        target_field: the rows' field that holds the reference; "answer" by default for gsm8k.
        prefix: text put in front of every prompt; None takes the task's own default.
        vocabulary: size of the tokenizer built from the training text.
        difficulty: least and most steps of an arithmetic problem.
        seed: the arithmetic problems' seed.
        held_out: rows at the end of train to use as validation where the data has no validation split; None takes the
            task's own default (500 for gsm8k).
        held_out_test: rows at the end of train to use as test where the data has no test split.
        skip_empty: leave out rows with an empty field instead of refusing them.
        stemmer: Porter stemming in ROUGE (summarisation).
        rouge_tokenizer: auto, ascii or unicode (summarisation).
        bleu_tokenizer: sacreBLEU's 13a, intl, zh, ja-mecab, ko-mecab, char or flores200 (translation).
        calculator_marks: opening and closing mark of a calculation (gsm8k).
        max_calculations: keep the problems of at most this many calculations (gsm8k).

    Raises:
        ValueError: an unknown name, or a task that needs ``data`` or fields without them.
    """
    if name == "arithmetic":
        if max_calculations is not None:
            raise ValueError(f"max_calculations is {max_calculations}, but arithmetic has max_problem_steps; use that.")
        return ArithmeticTask(min_steps=difficulty[0], max_steps=difficulty[1], seed=seed)
    if name not in KINDS:
        raise ValueError(f"task {name!r} is unknown; choose one of: {', '.join(TASKS)}.")
    if not data:
        raise ValueError(f"task {name!r} needs data: a folder with train/validation/test files, or a hub name.")
    options: dict[str, Any] = {"prefix": prefix, "vocabulary": vocabulary, "subset": subset, "skip_empty": skip_empty}
    options["held_out_test"] = held_out_test
    if held_out is not None:
        options["held_out"] = held_out
    if name == "gsm8k":
        source_field, target_field = source_field or "question", target_field or "answer"
        options["calculator_marks"] = calculator_marks
        options["max_calculations"] = max_calculations
    elif max_calculations is not None:
        raise ValueError(
            f"max_calculations is {max_calculations}, but only task 'gsm8k' uses it, not {name!r}; leave it out."
        )
    if name == "summarisation":
        options |= {"stemmer": stemmer, "rouge_tokenizer": rouge_tokenizer}
    if name == "translation":
        options["bleu_tokenizer"] = bleu_tokenizer
    if not source_field or not target_field:
        raise ValueError(f"task {name!r} needs source_field and target_field: the fields of prompt and reference.")
    return KINDS[name](data, source_field, target_field, **options)
