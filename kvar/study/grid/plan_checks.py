"""Checks of a planned cell without its weights: data, the student's architecture, missing models."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from kvar.study.settings.run_settings import EvaluationSettings, ModelSettings, TaskSettings

if TYPE_CHECKING:
    from kvar.tasks import Task

__all__ = ["check_data", "check_student_config", "missing_models"]

PACKAGED = "smollm2"  # a teacher from another package


def check_data(task: Task, settings: TaskSettings, evaluation: EvaluationSettings, checked: set[str]) -> None:
    """Read the first example of the training split and of the scored split of local data.

    Args:
        task: built from the settings.
        settings: of the task.
        evaluation: names the scored split.
        checked: keys of data that are already checked; the new key is added.

    Raises:
        ValueError: data that is not a folder, or a missing split or field.
    """
    splits = ["train", *([evaluation.eval_split] if evaluation.eval_limit else [])]
    key = f"{splits} of {settings}"
    if key in checked:
        return
    if settings.data is None or _is_local(settings.data):
        for split in splits:
            task.examples(split, 1)
    checked.add(key)


def check_student_config(settings: ModelSettings) -> None:
    """Raise ValueError where transformers does not know the student's ``model_type`` or refuses a field."""
    if settings.student_config is not None:
        from kvar.distill.models.build import architecture

        architecture(settings.student_config)


def missing_models(cells: Iterable[ModelSettings], made: set[str]) -> list[str]:
    """A line for every teacher, student or tokenizer that is not a local folder, nor ``made`` by the study."""
    from kvar.distill.models.shipped import SHIPPED

    lines = []
    named = {(n, getattr(s, n)) for s in cells for n in ("teacher", "student", "tokenizer") if getattr(s, n)}
    for field, name in sorted(named):
        if name in made or name in (*SHIPPED, PACKAGED) or Path(name).exists():
            continue
        lines.append(f"{field} {name}: " + ("does not exist yet" if _is_local(name) else "not a folder; a hub name"))
    return lines


def _is_local(name: str) -> bool:
    """Whether a name is a path: it exists, or cannot be a hub name."""
    return Path(name).expanduser().exists() or name.startswith((".", "/", "~")) or name.count("/") > 1
