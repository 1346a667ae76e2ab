"""The task of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvar.study.settings.run_settings import TaskSettings
    from kvar.tasks import Task

__all__ = ["build_task", "check_calculator", "check_score", "fit_task"]

SAME_NAME = (
    "data", "source_field", "target_field", "prefix", "vocabulary", "held_out", "held_out_test", "skip_empty",
    "stemmer", "rouge_tokenizer", "bleu_tokenizer", "max_calculations",
)  # fmt: skip
"""Settings that ``task_from_options`` calls by the same name."""


def build_task(settings: TaskSettings) -> Task:
    """The task of a run.

    Raises:
        ValueError: an unknown task, missing data or fields, or a score that the task does not have.
    """
    from kvar.tasks import task_from_options

    marks = settings.calculator_marks.split()
    if len(marks) != 2:
        raise ValueError(
            f"calculator_marks must be two marks with a blank between them, such as '<< >>'; got "
            f"{settings.calculator_marks!r}."
        )
    task = task_from_options(
        settings.task,
        subset=settings.data_subset,
        difficulty=(settings.min_problem_steps, settings.max_problem_steps),
        seed=settings.task_seed,
        calculator_marks=(marks[0], marks[1]),
        **{name: getattr(settings, name) for name in SAME_NAME},
    )
    if settings.reward_score is not None:
        check_score(task, settings.reward_score)
        task.reward = settings.reward_score
    return task


def check_score(task: Task, name: str | None) -> None:
    """Raise ValueError where the task has no score of that name."""
    from kvar.tasks import Example

    task.example_scores(["x"], [Example("x", "x")], name)


def check_calculator(task: Task, tokenizer: Any) -> None:
    """Raise ValueError for a task without calculation marks, or with marks that the tokenizer cannot write."""
    from kvar.evaluation.calculator_logits import Calculator

    if task.calculator_marks is None:
        raise ValueError(f"calculator is true but task {task.name!r} has no calculation marks; set it to false.")
    Calculator(tokenizer, 0, task.calculator_marks)


def fit_task(settings: TaskSettings, task: Task, tokenizer: Any, model: Any = None) -> Task:
    """The same task, its prompts cut to ``truncate_prompts`` tokens where that is set."""
    if settings.truncate_prompts is None:
        return task
    from kvar.rollouts import TextEncoder
    from kvar.tasks.truncate import TruncatedTask

    encoder = TextEncoder(tokenizer, model)
    return TruncatedTask(task, tokenizer, settings.truncate_prompts, encoder.prompts)
