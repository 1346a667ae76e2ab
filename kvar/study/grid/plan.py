"""The plan of a study: every cell with its checked settings and its state."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kvar.records.place import check_folder_place
from kvar.records.study_folder import run_state
from kvar.study.grid.cells import Cell, cells_of, select_cells
from kvar.study.grid.folder import check_study_folder
from kvar.study.grid.plan_checks import check_data, check_student_config, missing_models
from kvar.study.run.identity import check_output, run_config
from kvar.study.run.preflight import check_machine
from kvar.study.run.tasks import build_task
from kvar.study.settings.reading import settings_from
from kvar.study.settings.run_settings import RunSettings

__all__ = ["Planned", "describe_plan", "plan_study"]


@dataclass(frozen=True)
class Planned:
    """A cell with the fields of its run, the settings parsed from them, and its state; "begun" can be resumed."""

    cell: Cell
    values: dict[str, Any]
    settings: RunSettings
    state: Literal["done", "begun", "to run"]


def plan_study(
    study: Mapping[str, Any],
    output: str | Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    only: Sequence[str] = (),
    overwrite: bool = False,
) -> list[Planned]:
    """Parse and check every selected cell, without writing or loading weights.

    Args:
        study: from ``read_study``.
        output: the study's folder.
        overrides: fields set in every cell, which replace the study's.
        only: see ``select_cells``.
        overwrite: finished and begun cells are to be run again.

    Raises:
        ValueError: bad settings in any cell, two cells that are the same run, a cell whose start neither exists
            nor is selected, local data that cannot be read, or a folder of another study or run.
    """
    output, overrides = Path(output), dict(overrides or {})
    check_folder_place(output, "output")
    _check_overrides(overrides, study)
    every = cells_of(study)
    if not overwrite:
        check_study_folder(output, every)
    cells = select_cells(every, only)
    planned: list[Planned] = []
    runs, data = dict[str, str](), set[str]()
    for cell in cells:
        values = {**cell.values, **overrides, "output_dir": str(output / cell.name)}
        if cell.needs is not None:
            values["student"] = str(output / cell.needs / "model")
        settings, training = settings_from(values, f"cell {cell.name}")
        same = runs.setdefault(json.dumps(run_config(settings, training), sort_keys=True, default=str), cell.name)
        if same != cell.name:
            raise ValueError(f"cells {same} and {cell.name} are the same run, with equal settings. Leave one out.")
        check_output(settings, training, overwrite=overwrite)
        state = "to run" if overwrite else run_state(output / cell.name)
        if state != "done":
            try:
                check_machine(settings, training)
                check_student_config(settings.models)
                check_data(build_task(settings.task), settings.task, settings.evaluation, data)
            except ValueError as error:
                raise ValueError(f"cell {cell.name}: {error}") from error
        planned.append(Planned(cell, values, settings, state))
    _check_starts(planned, output)
    return planned


def describe_plan(planned: Sequence[Planned]) -> str:
    """The plan as text: a line per cell, their number, and the missing models."""
    width = max(len(item.cell.name) for item in planned)
    lines = [
        f"{item.state:<6}  {item.cell.name:<{width}}" + (f"  from {item.cell.needs}" if item.cell.needs else "")
        for item in planned
    ]
    counts = [f"{sum(i.state == state for i in planned)} {state}" for state in ("done", "begun", "to run")]
    lines += [
        "",
        f"{len(planned)} cells: {', '.join(counts)}. Settings, data and folders are checked; weights are not.",
    ]
    waiting = [item.settings.models for item in planned if item.state != "done"]
    starts = {str(item.values["student"]) for item in planned if item.cell.needs is not None}
    lines += missing_models(waiting, starts)
    return "\n".join(line.rstrip() for line in lines)


def _check_overrides(overrides: Mapping[str, Any], study: Mapping[str, Any]) -> None:
    if "output_dir" in overrides:
        raise ValueError("output_dir cannot be set, the study sets it for every cell; use --output for its folder.")
    seeds = study.get("seeds") or next((stage["seeds"] for stage in study["stages"] if "seeds" in stage), None)
    if "seed" in overrides and seeds:
        raise ValueError(
            f"seed is {overrides['seed']!r}, but the study has seeds {seeds}; choose among them with --only seed-N."
        )


def _check_starts(planned: Sequence[Planned], output: Path) -> None:
    asked = {item.cell.name for item in planned}
    for cell in (item.cell for item in planned if item.state != "done"):
        if cell.needs is not None and cell.needs not in asked and not (output / cell.needs / "model").is_dir():
            raise ValueError(
                f"cell {cell.name} starts from {cell.needs}, which has not run in {output}; add {cell.needs} to --only."
            )
