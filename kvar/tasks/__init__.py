"""Tasks: prompts, targets, and scores of generated texts."""

from kvar.tasks.arithmetic import ArithmeticTask
from kvar.tasks.base import Example, Task
from kvar.tasks.calculator import calculate, open_mark
from kvar.tasks.gsm8k import GSM8KTask
from kvar.tasks.options import TASKS, task_from_options
from kvar.tasks.scores.corpus_score import CorpusScore, mean_score, ratio_score, values_of
from kvar.tasks.summarisation import SummarisationTask
from kvar.tasks.text import TextTask
from kvar.tasks.translation import TranslationTask

__all__ = [
    "TASKS",
    "ArithmeticTask",
    "CorpusScore",
    "Example",
    "GSM8KTask",
    "SummarisationTask",
    "Task",
    "TextTask",
    "TranslationTask",
    "calculate",
    "mean_score",
    "open_mark",
    "ratio_score",
    "task_from_options",
    "values_of",
]
