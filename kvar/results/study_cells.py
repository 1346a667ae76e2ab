"""The cells of a study's folder: which were planned, which are finished."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["PLACES", "STUDY_FILE", "StudyCell", "is_grid", "study_cells", "trained_estimator"]

STUDY_FILE = "study.json"
PLACES = frozenset({"data", "teacher", "output_dir", "use_cpu", "report_to"})
"""Settings that may differ between machines on which parts of one study run."""


@dataclass(frozen=True)
class StudyCell:
    """One run of a study.

    Attributes:
        task: task's name, or "" in a study of one.
        student: student's name.
        method: stage's or method's name.
        seed: of the run.
        start: name of the method whose student it starts from, or None.
        path: its folder.
        finished: whether it was trained and evaluated; a failed, running or waiting cell is not.
        estimator: that it trains with by the study's settings, see :func:`trained_estimator`; None for none.
        settings: digest of the study's settings for it, but for those that name places and not what is computed.
    """

    task: str
    student: str
    method: str
    seed: int
    start: str | None
    path: Path
    finished: bool
    estimator: str | None
    settings: str


def is_grid(folder: str | Path) -> bool:
    """Whether a folder is a study's with several seeds, which is reported by method instead of run by run."""
    path = Path(folder) / STUDY_FILE
    if not path.is_file():
        return False
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError, TypeError):
        return False
    return len({fields.get("seed") for fields in cells.values()}) > 1


def study_cells(folder: str | Path) -> list[StudyCell]:
    """Every cell that ``study.json`` names, in its order.

    Raises:
        ValueError: no study there, or a damaged file.
    """
    path = Path(folder) / STUDY_FILE
    try:
        cells: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no {STUDY_FILE}: name the folder that kvar study wrote to.") from None
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is not what kvar study writes: run the study again, which renews it.") from None
    return [_cell(Path(folder), name, fields) for name, fields in cells.items()]


def _cell(folder: Path, name: str, fields: Mapping[str, Any]) -> StudyCell:
    task, student, method = _names(name)
    start = fields.get("from")
    path = folder / name
    done = (path / "evaluation.json").is_file() and (path / "config.json").is_file()
    first = start and _names(start)[2]
    seed = int(fields.get("seed") or 0)
    return StudyCell(task, student, method, seed, first, path, done, trained_estimator(fields), _digest(fields))


def _digest(fields: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that change with any setting that matters, whatever the order of the fields."""
    kept = {name: value for name, value in fields.items() if name not in PLACES}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


def _names(cell: str) -> tuple[str, str, str]:
    """Task ("" where there is none), student and method of ``[TASK/]STUDENT/METHOD[/seed-N]``.

    >>> _names("sums/small/K=4/seed-0"), _names("small/llmr")
    (('sums', 'small', 'K=4'), ('', 'small', 'llmr'))
    """
    parts = [part for part in cell.split("/") if not re.fullmatch(r"seed-\d+", part)]
    return "/".join(parts[:-2]), parts[-2], parts[-1]


def trained_estimator(config: Mapping[str, Any]) -> str | None:
    """Name of the gradient estimator that a run trains with, as probes name it: its kernel, less its baseline.

    Args:
        config: of the run.

    Returns:
        For instance "K=4" or "K=1 - batch-mean"; None for an objective that is no policy gradient of its own.

    Example:
        >>> trained_estimator({"objective": "llmr", "kernel": "K=4"})
        'K=1'
        >>> trained_estimator({"objective": "ketchup", "kernel": "4", "baseline": "teacher-value"})
        'K=4 - teacher-value'
        >>> trained_estimator({"objective": "kl"}), trained_estimator({"objective": "ketchup + 0.1 sft"})
        (None, None)
    """
    from kvar.returns import parse_kernel

    objective = str(config.get("objective", "ketchup"))
    if objective not in ("llmr", "ketchup"):
        return None
    kernel = parse_kernel("K=1" if objective == "llmr" else str(config.get("kernel") or "K=4")).name
    baseline = config.get("baseline")
    return f"{kernel} - {baseline}" if baseline else kernel
