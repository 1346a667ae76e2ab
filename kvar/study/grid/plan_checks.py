"""Checks of a planned cell that read no weights: data, the student's architecture, missing models."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from kvar.study.settings.run_settings import EvaluationSettings, ModelSettings, TaskSettings

if TYPE_CHECKING:
    from kvar.tasks import Task

__all__ = ["check_data", "check_student_config", "missing_models"]

PACKAGED = "smollm2"  # the teacher that a package of its own ships


def check_data(task: Task, settings: TaskSettings, evaluation: EvaluationSettings, checked: set[str]) -> None:
    """Read the first example of the training split and of the one that is scored; hub data are left alone.

    Args:
        task: built from the settings.
        settings: of the task.
        evaluation: names the split that is scored.
        checked: keys of what was read before and is not read again; extended here.

    Raises:
        ValueError: data that is no folder, or a missing split or field.
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
    """Check that transformers knows the student's architecture.

    Raises:
        ValueError: ``model_type`` missing or unknown, or a size that its family refuses.
    """
    if settings.student_config is not None:
        from kvar.distill.models.build import architecture

        architecture(settings.student_config)


def missing_models(cells: Iterable[ModelSettings], made: set[str]) -> list[str]:
    """A line for every teacher, student or tokenizer that is no local folder.

    Args:
        cells: settings of the cells to run.
        made: folders that the study itself makes.
    """
    from kvar.distill.models.shipped import SHIPPED

    lines = []
    named = {(n, getattr(s, n)) for s in cells for n in ("teacher", "student", "tokenizer") if getattr(s, n)}
    for field, name in sorted(named):
        if name in made or name in (*SHIPPED, PACKAGED) or Path(name).exists():
            continue
        lines.append(f"{field} {name}: " + ("not there yet" if _is_local(name) else "not a folder here; the hub's"))
    return lines


def _is_local(name: str) -> bool:
    """Whether a name is that of a folder or file: it exists, or is written as no hub name can be."""
    return Path(name).expanduser().exists() or name.startswith((".", "/", "~")) or name.count("/") > 1
