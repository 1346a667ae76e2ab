"""Checks that a folder holds this study and no other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kvar.records.load import CONFIG
from kvar.records.study_folder import STUDY, read_cells, write_cells
from kvar.study.grid.cells import Cell

__all__ = ["check_study_folder", "mark_study_folder"]


def check_study_folder(output: Path, cells: Sequence[Cell]) -> None:
    """Check that a folder is empty or holds this study.

    A study that gained methods, students or seeds, or some cells of which changed, is still the same: one equal cell is
    enough. (A run that was begun with other settings is refused by the check of its own folder.) Fields set on the
    command line are not compared.

    Args:
        output: the study's folder; it need not exist.
        cells: all cells of the study.

    Raises:
        ValueError: the folder is a run's or a file, or none of its study's cells is one of these.
    """
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file; name a folder for the study.")
    if (output / CONFIG).is_file():
        raise ValueError(f"{output} holds a single run; name a folder of its own for the study.")
    if not (output / STUDY).is_file():
        return
    written, planned = read_cells(output), _fields(cells)
    if any(written.get(name) == fields for name, fields in planned.items()):
        return
    both = [name for name in planned if name in written]
    if not both:
        what = f"its cells are {', '.join(list(written)[:3])} ..., those here are {', '.join(list(planned)[:3])} ..."
    else:
        old, new = written[both[0]], planned[both[0]]
        field = next(f for f in {**old, **new} if old.get(f) != new.get(f))
        what = f"in cell {both[0]}, {field} is {old.get(field)!r} there and {new.get(field)!r} here"
    raise ValueError(f"{output} holds another study: {what}. Choose another folder, or the config that it came from.")


def mark_study_folder(output: Path, cells: Sequence[Cell]) -> None:
    """Write which study the folder holds."""
    write_cells(output, _fields(cells))


def _fields(cells: Sequence[Cell]) -> dict[str, Any]:
    fields = {cell.name: {**cell.values, "from": cell.needs} for cell in cells}
    return dict(json.loads(json.dumps(fields, default=str)))
