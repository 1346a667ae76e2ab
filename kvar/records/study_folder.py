"""The folder of a study: ``study.json``, and a run in ``[TASK/]STUDENT/METHOD[/seed-N]`` for every cell.

``study.json`` holds ``{"cells": {name: fields}}``: every planned cell with its settings and, as ``from``, the cell
whose student it starts from. A run is begun once it has a ``config.json`` and finished once it has an
``evaluation.json``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from kvar.records.load import CONFIG
from kvar.records.parts import replace_file

__all__ = [
    "EVALUATION", "STUDY", "cell_name", "cell_parts", "is_grid", "read_cells", "run_state", "study_above", "write_cells"
]  # fmt: skip

STUDY = "study.json"
EVALUATION = "evaluation.json"


def cell_name(task: str | None, student: str, method: str, seed: int | None) -> str:
    """The name of a cell, which is its folder below the study's."""
    parts = [task, student, method, None if seed is None else f"seed-{seed}"]
    return "/".join(part for part in parts if part)


def cell_parts(name: str) -> tuple[str, str, str, str | None]:
    """Task ("" for none), student, method and seed of a cell's name, or of a path that ends in one.

    >>> cell_parts("sums/small/K=4/seed-0"), cell_parts("small/llmr")
    (('sums', 'small', 'K=4', '0'), ('', 'small', 'llmr', None))
    """
    *parts, last = name.split("/")
    seed = re.fullmatch(r"seed-(\d+)", last)
    method = parts.pop() if seed and parts else last
    student = parts.pop() if parts else ""
    return "/".join(parts), student, method, seed and seed[1]


def write_cells(folder: Path, cells: Mapping[str, Mapping[str, Any]]) -> None:
    """Write ``study.json``, making the folder where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / STUDY, json.dumps({"cells": cells}, indent=1, default=str).encode())


def read_cells(folder: str | Path) -> dict[str, dict[str, Any]]:
    """Name -> fields of every cell that ``study.json`` lists, in its order.

    Raises:
        ValueError: the file is missing or damaged.
    """
    path = Path(folder) / STUDY
    try:
        return {name: dict(fields) for name, fields in json.loads(path.read_text(encoding="utf-8"))["cells"].items()}
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no {STUDY}: name the folder that kvar study wrote to.") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(
            f"{path} is not what kvar study writes: if the runs beside it are this study's, remove it and run the "
            "study again."
        ) from None


def is_grid(folder: str | Path) -> bool:
    """Whether a folder is that of a study with several seeds, which is reported by method instead of run by run."""
    try:
        return len({fields.get("seed") for fields in read_cells(folder).values()}) > 1
    except ValueError:
        return False


def study_above(run: Path) -> Path | None:
    """The nearest study's folder above a run's, at most five levels up."""
    return next((parent for parent in run.parents[:5] if (parent / STUDY).is_file()), None)


def run_state(folder: Path) -> Literal["done", "begun", "to run"]:
    """The state of the run in a folder."""
    if (folder / EVALUATION).is_file():
        return "done"
    return "begun" if (folder / CONFIG).is_file() else "to run"
