"""Tasks: where prompts and targets come from and how generated text is scored."""

from kvar.tasks.arithmetic import ArithmeticTask
from kvar.tasks.base import Example, Task
from kvar.tasks.options import task_from_options
from kvar.tasks.text import TextTask
from kvar.tasks.translation import TranslationTask

__all__ = ["ArithmeticTask", "Example", "Task", "TextTask", "TranslationTask", "task_from_options"]
