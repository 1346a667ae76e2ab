"""The folder of a study: which study it holds, so that two do not mix."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kvar.study.grid.cells import Cell

__all__ = ["STUDY_FILE", "check_study_folder", "mark_study_folder"]

STUDY_FILE = "study.json"


def check_study_folder(output: Path, cells: Sequence[Cell]) -> None:
    """Refuse a folder of another study.

    A study that gained methods, students or seeds, or of which some cells were changed, is still the same: one equal
    cell is enough. (A run that was begun with other settings is refused by its own folder.) Fields set on the command
    line do not count.

    Args:
        output: the study's folder; it need not exist.
        cells: all cells of the study.

    Raises:
        ValueError: the folder is a run's or a file, or none of its study's cells is one of these.
    """
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file; name a folder for the study.")
    if (output / "config.json").is_file():
        raise ValueError(f"{output} holds a single run; name a folder of its own for the study.")
    path = output / STUDY_FILE
    if not path.is_file():
        return
    try:
        there: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is not what kvar wrote; remove it if the runs beside it are this study's.") from None
    here = _fields(cells)
    if any(there.get(name) == fields for name, fields in here.items()):
        return
    both = [name for name in here if name in there]
    if not both:
        what = f"its cells are {', '.join(list(there)[:3])} ..., those here are {', '.join(list(here)[:3])} ..."
    else:
        name = both[0]
        field = next(f for f in {**there[name], **here[name]} if there[name].get(f) != here[name].get(f))
        what = f"in cell {name}, {field} is {there[name].get(field)!r} there and {here[name].get(field)!r} here"
    raise ValueError(f"{output} holds another study: {what}. Choose another folder, or the config that it came from.")


def mark_study_folder(output: Path, cells: Sequence[Cell]) -> None:
    """Write down which study the folder holds."""
    from kvar.records.parts import replace_file

    output.mkdir(parents=True, exist_ok=True)
    replace_file(output / STUDY_FILE, json.dumps({"cells": _fields(cells)}, indent=1).encode())


def _fields(cells: Sequence[Cell]) -> dict[str, Any]:
    fields = {cell.name: {**cell.values, "from": cell.needs} for cell in cells}
    return dict(json.loads(json.dumps(fields, default=str)))
