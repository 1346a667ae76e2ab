"""Read a study's file and list its cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from kvar.records.study_folder import cell_name
from kvar.study.grid.checks import check_grid, stages_of
from kvar.study.settings.reading import find_config, load_yaml
from kvar.study.settings.run_settings import STARTS

__all__ = ["Cell", "cells_of", "read_study", "select_cells", "starts_first"]


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        student: the student's name.
        method: the method's, or stage's, name.
        values: all fields of the run except output_dir and, where the cell starts from another, student.
        start: the method whose student this one starts from, or None.
        task: the task's name; None in a study without ``tasks``.
        seed: None in a study without ``seeds``.
        needs: name of the cell whose student this one starts from, or None.
    """

    student: str
    method: str
    values: dict[str, Any]
    start: str | None = None
    task: str | None = None
    seed: int | None = None
    needs: str | None = None

    @property
    def name(self) -> str:
        """[task/]student/method[/seed-N], the run's folder inside the study's."""
        return cell_name(self.task, self.student, self.method, self.seed)


def read_study(config: str) -> dict[str, Any]:
    """The checked mapping of a study's file, with ``methods`` appended to ``stages``.

    Args:
        config: a path, or the name of a study that ships with kvar.

    Raises:
        ValueError: an unreadable file, or one that :func:`kvar.study.grid.checks.check_grid` refuses.
    """
    path = find_config(config)
    study = load_yaml(path)
    try:
        check_grid(study)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return {**{key: value for key, value in study.items() if key != "methods"}, "stages": stages_of(study)}


def cells_of(study: Mapping[str, Any], only: Sequence[str] = ()) -> list[Cell]:
    """The cells of a study of :func:`read_study`, ordered by task, seed, student and stage, as in the file.

    ``only`` and errors as of :func:`select_cells`.
    """
    cells = []
    everywhere = study.get("seeds") or (None,)
    seeds_of = {str(stage["name"]): list(stage.get("seeds") or everywhere) for stage in study["stages"]}
    every_seed = list(dict.fromkeys(seed for seeds in (everywhere, *seeds_of.values()) for seed in seeds))
    for task, of_task in (study.get("tasks") or {None: {}}).items():
        for seed in every_seed:
            for student, origin in study["students"].items():
                for stage in study["stages"]:
                    method, start = str(stage["name"]), stage.get("from")
                    if seed not in seeds_of[method]:
                        continue
                    values = {**(study.get("common") or {}), **(of_task or {}), **stage}
                    values = {key: value for key, value in values.items() if key not in ("name", "from", "seeds")}
                    label, needs = None if task is None else str(task), None
                    if start is None:
                        values |= _origin(origin)
                    else:
                        start = str(start)
                        first = seed if seed in seeds_of[start] else seeds_of[start][0]  # one seed serves all
                        needs = cell_name(label, str(student), start, first)
                    if seed is not None:
                        values["seed"] = seed
                    cells.append(Cell(str(student), method, values, start, label, seed, needs))
    return select_cells(cells, only)


def starts_first(cells: Sequence[Cell]) -> list[Cell]:
    """The cells in the given order, but every cell after the one that it starts from."""
    by_name = {cell.name: cell for cell in cells}
    ordered: dict[str, Cell] = {}

    def put(cell: Cell) -> None:
        if cell.needs in by_name and cell.needs not in ordered:
            put(by_name[cell.needs])
        ordered.setdefault(cell.name, cell)

    for cell in cells:
        put(cell)
    return list(ordered.values())


def select_cells(cells: Sequence[Cell], only: Sequence[str]) -> list[Cell]:
    """The cells that ``only`` selects.

    Args:
        cells: all cells.
        only: each a cell's name, a part of one (task, student, method, ``seed-0``), the first parts joined by "/", or a
            pattern such as ``*/K=*/seed-0``; empty for all cells.

    Raises:
        ValueError: one of them names no cell.
    """

    def meant(cell: Cell, word: str) -> bool:
        parts = cell.name.split("/")
        return word in parts or f"{cell.name}/".startswith(f"{word}/") or fnmatchcase(cell.name, word)

    for word in only:
        if not any(meant(cell, word) for cell in cells):
            names = [cell.name for cell in cells]
            more = f" and {len(names) - 20} more" if len(names) > 20 else ""
            raise ValueError(f"only {word!r} names no cell; there are: {', '.join(names[:20])}{more}.")
    return [cell for cell in cells if not only or any(meant(cell, word) for word in only)]


def _origin(student: Any) -> dict[str, Any]:
    """A student's fields: those that define its initial weights, and others beside them."""
    if isinstance(student, str):
        return {"student": student}
    return dict(student) if STARTS.keys() & student else {"student_config": student}
