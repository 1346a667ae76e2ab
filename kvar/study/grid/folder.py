"""Check that a folder holds this study and no other."""

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

    One equal cell is enough, so that methods, students or seeds can be added. (A run with other settings is refused by
    the check of its own folder.) Fields set on the command line are not compared.

    Args:
        output: the study's folder; it need not exist.
        cells: all cells of the study.

    Raises:
        ValueError: a file, the folder of a run, or of a study without a cell in common.
    """
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file; name a folder for the study.")
    if (output / CONFIG).is_file():
        raise ValueError(f"{output} holds a single run; name another folder for the study.")
    if not (output / STUDY).is_file():
        return
    written, planned = read_cells(output), _fields(cells)
    if any(written.get(name) == fields for name, fields in planned.items()):
        return
    both = [name for name in planned if name in written]
    if not both:
        what = f"its cells are {', '.join(list(written)[:3])} ..., not {', '.join(list(planned)[:3])} ..."
    else:
        old, new = written[both[0]], planned[both[0]]
        field = next(f for f in {**old, **new} if old.get(f) != new.get(f))
        what = f"in cell {both[0]}, {field} is {old.get(field)!r}, not {new.get(field)!r}"
    raise ValueError(f"{output} holds another study: {what}. Choose another folder, or the config of that study.")


def mark_study_folder(output: Path, cells: Sequence[Cell]) -> None:
    """Write the study's cells into its folder."""
    write_cells(output, _fields(cells))


def _fields(cells: Sequence[Cell]) -> dict[str, Any]:
    fields = {cell.name: {**cell.values, "from": cell.needs} for cell in cells}
    return dict(json.loads(json.dumps(fields, default=str)))
