"""The task that a run's settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvar.study.settings.run_settings import TaskSettings
    from kvar.tasks import Task

__all__ = ["build_task", "check_calculator", "fit_task"]


def build_task(settings: TaskSettings) -> Task:
    """The task of a run.

    Raises:
        ValueError: an unknown task, one whose data or fields are missing, or a score that it does not have.
    """
    from kvar.tasks import Example, task_from_options

    marks = settings.calculator_marks.split()
    if len(marks) != 2:
        raise ValueError(
            f"calculator_marks must be two marks with a blank between them, such as '<< >>'; got "
            f"{settings.calculator_marks!r}."
        )
    task = task_from_options(
        settings.task,
        data=settings.data,
        subset=settings.data_subset,
        source_field=settings.source_field,
        target_field=settings.target_field,
        prefix=settings.prefix,
        vocabulary=settings.vocabulary,
        difficulty=(settings.min_problem_steps, settings.max_problem_steps),
        seed=settings.task_seed,
        held_out=settings.held_out,
        held_out_test=settings.held_out_test,
        skip_empty=settings.skip_empty,
        stemmer=settings.stemmer,
        rouge_tokenizer=settings.rouge_tokenizer,
        bleu_tokenizer=settings.bleu_tokenizer,
        calculator_marks=(marks[0], marks[1]),
        max_calculations=settings.max_calculations,
    )
    if settings.reward_score is not None:
        task.example_scores(["x"], [Example("x", "x")], settings.reward_score)  # refuses what the task does not have
        task.reward = settings.reward_score
    return task


def check_calculator(task: Task, tokenizer: Any) -> None:
    """Check that a model can be given the results of its calculations.

    Raises:
        ValueError: a task without calculation marks, or marks that the tokenizer cannot write.
    """
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
