"""A study: every stage of training for every student, one run folder a cell, resumable.

A study file is a YAML mapping:

    common:   fields of every cell, those of RunSettings and DistillationConfig
    students: student's name -> its ``student_config``, or the folder or hub name of a pretrained one, or
              ``{student_layers: every 3}`` for one made of the teacher's layers
    stages:   a list of mappings; ``name``, optionally ``from`` (the earlier stage whose student it starts from, instead
              of random weights), and any fields

Cell (student, stage) is the run in ``OUTPUT/student/stage``. A finished cell is not run again, a killed one is gone on
with, a failed one is reported and does not stop the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvar.study.run import check_output, train_run
from kvar.study.settings import find_config, load_yaml, settings_from

__all__ = ["Cell", "cells_of", "read_study", "run_study"]

KEYS = ("common", "students", "stages")


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        student: the student's name.
        stage: the stage's name.
        values: all fields of the run but student and output_dir.
        start: the stage whose student this one starts from, or None.
    """

    student: str
    stage: str
    values: dict[str, Any]
    start: str | None

    @property
    def name(self) -> str:
        """student/stage: the run's folder inside the study's."""
        return f"{self.student}/{self.stage}"


def read_study(config: str) -> dict[str, Any]:
    """A study file's mapping, checked.

    Args:
        config: a path, or the name of a study that ships with kvar.

    Raises:
        ValueError: unreadable, a key missing or unknown, no students or stages, a stage named twice, or ``from`` naming
            no earlier stage.
    """
    path = find_config(config)
    study = load_yaml(path)
    unknown = sorted(set(study) - set(KEYS))
    if unknown:
        raise ValueError(f"{path}: unknown key {unknown[0]!r}; a study has {', '.join(KEYS)}.")
    for key in ("students", "stages"):
        if not study.get(key):
            raise ValueError(f"{path}: {key} is missing or empty; a study needs at least one of them.")
    seen: list[str] = []
    for stage in study["stages"]:
        name, start = stage.get("name"), stage.get("from")
        if not name or name in seen:
            raise ValueError(f"{path}: every stage needs a name of its own; got {name!r} after {seen}.")
        if start is not None and start not in seen:
            raise ValueError(f"{path}: stage {name!r} starts from {start!r}, which is no earlier stage ({seen}).")
        seen.append(name)
    return study


def cells_of(study: Mapping[str, Any], only: Sequence[str] = ()) -> list[Cell]:
    """The study's cells, students in order, stages in order.

    Args:
        study: what :func:`read_study` gave.
        only: keep the cells whose "student/stage" or student is named; empty for all.

    Raises:
        ValueError: ``only`` names something that is not there.
    """
    cells = []
    for student, config in study["students"].items():
        for stage in study["stages"]:
            values = {**(study.get("common") or {}), **{k: v for k, v in stage.items() if k not in ("name", "from")}}
            if stage.get("from") is None:
                values.update(_origin(config))
            cells.append(Cell(str(student), str(stage["name"]), values, stage.get("from")))
    for name in only:
        if not any(name in (cell.name, cell.student) for cell in cells):
            raise ValueError(f"only {name!r} names no cell; there are: {', '.join(cell.name for cell in cells)}.")
    return [cell for cell in cells if not only or cell.name in only or cell.student in only]


def _origin(student: Any) -> dict[str, Any]:
    """The fields that say what a student starts from."""
    if isinstance(student, str):
        return {"student": student}
    return dict(student) if "student_layers" in student else {"student_config": student}


def run_study(
    study: Mapping[str, Any],
    output: str | Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    only: Sequence[str] = (),
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, str]:
    """Run the cells that are not finished yet.

    Args:
        study: what :func:`read_study` gave.
        output: the study's folder.
        overrides: fields set in every cell, over the study's own.
        only: see :func:`cells_of`.
        overwrite: run every cell anew.
        say: told of every cell as it starts and ends.

    Returns:
        Failed cells: name -> what went wrong.

    Raises:
        ValueError: bad settings in any cell, or a folder that holds another run, before the first one runs.
    """
    cells = cells_of(study, only)
    planned = [_settings(cell, Path(output), overrides or {}) for cell in cells]
    for settings, training in planned:
        check_output(settings, training, overwrite=overwrite)
    failed: dict[str, str] = {}
    for number, (cell, (settings, training)) in enumerate(zip(cells, planned, strict=True), start=1):
        say(f"[{number}/{len(cells)}] {cell.name}")
        try:
            train_run(settings, training, overwrite=overwrite)
        except (ValueError, OSError, RuntimeError) as error:
            failed[cell.name] = f"{type(error).__name__}: {error}"
            say(f"[{number}/{len(cells)}] {cell.name} failed: {error}")
    return failed


def _settings(cell: Cell, output: Path, overrides: Mapping[str, Any]) -> Any:
    values = {**cell.values, **overrides, "output_dir": str(output / cell.student / cell.stage)}
    if cell.start is not None:
        values["student"] = str(output / cell.student / cell.start / "model")
    return settings_from(values, f"cell {cell.name}")
