"""Task and models of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvar.tasks import Task

__all__ = ["Parts"]


@dataclass
class Parts:
    """Task, tokenizer, student and, where there is one, teacher, loaded and checked."""

    task: Task
    tokenizer: Any
    student: Any
    teacher: Any
