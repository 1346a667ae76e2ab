"""The cells of a study's folder: which were planned, which are finished."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvar.records.load import CONFIG
from kvar.records.study_folder import cell_parts, read_cells, run_state

__all__ = ["PLACES", "StudyCell", "study_cells", "trained_estimator"]

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


def study_cells(folder: str | Path) -> list[StudyCell]:
    """Every cell that ``study.json`` names, in its order.

    Raises:
        ValueError: no study there, or a damaged file.
    """
    return [_cell(Path(folder), name, fields) for name, fields in read_cells(folder).items()]


def _cell(folder: Path, name: str, fields: Mapping[str, Any]) -> StudyCell:
    task, student, method, _ = cell_parts(name)
    path, start = folder / name, fields.get("from")
    done = run_state(path) == "done" and (path / CONFIG).is_file()
    first, seed = start and cell_parts(start)[2], int(fields.get("seed") or 0)
    return StudyCell(task, student, method, seed, first, path, done, trained_estimator(fields), _digest(fields))


def _digest(fields: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that change with any setting that matters, whatever the order of the fields."""
    kept = {name: value for name, value in fields.items() if name not in PLACES}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


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
        >>> trained_estimator({"objective": "policy-gradient", "estimator": "kl immediate exact"})
        'kl immediate exact'
    """
    from kvar.returns import parse_kernel

    objective = str(config.get("objective", "ketchup"))
    if objective == "policy-gradient":
        return str(config["estimator"])
    if objective not in ("llmr", "ketchup"):
        return None
    kernel = parse_kernel("K=1" if objective == "llmr" else str(config.get("kernel") or "K=4")).name
    baseline = config.get("baseline")
    return f"{kernel} - {baseline}" if baseline else kernel
