"""The teacher's own scores on a study's test examples, where they are recorded."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kvar.intervals import Interval
from kvar.records import load
from kvar.records.study_folder import EVALUATION
from kvar.results.earlier import EarlierReport
from kvar.results.study_cells import StudyCell

__all__ = ["teacher_scores"]


def teacher_scores(
    folder: str | Path,
    cells: Sequence[StudyCell],
    given: Mapping[str, str | Path] | None = None,
    earlier: EarlierReport | None = None,
) -> tuple[dict[str, dict[str, Interval]], list[str]]:
    """Task -> metric -> the teacher's score, from files that hold the same examples as the students' evaluations.

    A task's file is the one given, else ``FOLDER/TASK/teacher.json`` (``FOLDER/teacher.json`` in a study of one task),
    else the evaluation of the run that trained the teacher, beside its model, else that of an earlier report. One of
    ``kvar evaluate`` has bootstrap intervals over examples, one of a run none.

    Args:
        folder: the study's.
        cells: its cells.
        given: task -> evaluation file.
        earlier: an earlier report of the study, which cannot be checked to be on the same examples.

    Returns:
        The scores, and a sentence on every task that says where they are from, or why there are none.

    Raises:
        ValueError: a given file that is missing, no evaluation, or of other examples, or a task that does not exist.
    """
    tasks: dict[str, StudyCell] = {}
    for cell in cells:
        if cell.finished:
            tasks.setdefault(cell.task, cell)
    unknown = sorted(set(given or {}) - {cell.task for cell in cells})
    if unknown:
        raise ValueError(f"teacher of task {', '.join(unknown)}: the study's tasks are {', '.join(tasks) or 'none'}.")
    scores: dict[str, dict[str, Interval]] = {}
    notes = []
    for task, cell in tasks.items():
        name = task or "the task"
        named = (given or {}).get(task)
        if named is not None:
            why = _unlike(Path(named), cell)
            if why:
                raise ValueError(f"teacher of {name}: {named} {why}.")
            path: Path | None = Path(named)
        else:
            path, why = _recorded(Path(folder), cell)
        if path is None and earlier is not None and task in earlier.teachers:
            continue
        if path is None:
            notes.append(
                f"{name}: no evaluation of the teacher ({why}); write one with kvar evaluate {cell.path} "
                f"--model TEACHER --no-teacher --output {Path(folder) / task / 'teacher.json'}."
            )
            continue
        scores[task], how = _scores(path)
        notes.append(f"{name}: the teacher's scores are those of {path}{how}.")
    for task, recorded in earlier.teachers.items() if earlier is not None else ():
        if task not in scores:
            scores[task] = dict(recorded)
            notes.append(f"{task or 'the task'}: the teacher's scores are those of the earlier report.")
    return scores, notes


def _recorded(folder: Path, cell: StudyCell) -> tuple[Path | None, str]:
    """The evaluation of a task's teacher that is recorded, or why none serves."""
    teacher = str(load(cell.path).config.get("teacher") or "")
    places = [folder / cell.task / "teacher.json", Path(teacher).parent / EVALUATION]
    reasons = []
    for place in places:
        why = _unlike(place, cell)
        if not why:
            return place, ""
        reasons.append(f"{place} {why}")
    return None, "; ".join(reasons)


def _unlike(path: Path, cell: StudyCell) -> str:
    """Why a file is no evaluation on the examples that a cell was evaluated on; empty if it is."""
    if not path.is_file():
        return "is not there"
    ours = _read(cell.path / EVALUATION)
    try:
        theirs = _read(path)
        for field in ("split", "examples"):
            if theirs[field] != ours[field]:
                return f"has {field} {theirs[field]!r}, the students {ours[field]!r}"
        pairs = zip(theirs["samples"], ours["samples"], strict=False)
        if any(a["prompt"] != b["prompt"] or a["target"] != b["target"] for a, b in pairs):
            return "is of other examples"
        dict(theirs["metrics"])
    except (ValueError, KeyError, TypeError):
        return "is not what kvar evaluate or a run writes"
    return ""


def _scores(path: Path) -> tuple[dict[str, Interval], str]:
    content = _read(path)
    ends: dict[str, Any] = content.get("intervals") or {}
    scores = {}
    for name, value in content["metrics"].items():
        if value is not None:
            interval = ends.get(name) or {}
            low, high = (math.nan if interval.get(end) is None else float(interval[end]) for end in ("low", "high"))
            scores[name] = Interval(float(value), low, high)
    return scores, ", with bootstrap intervals over examples" if ends else ""


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))
