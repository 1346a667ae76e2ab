"""How many trajectories the steps of a study's trainings are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kvar.records import Run, load
from kvar.results.study_cells import StudyCell, trained_estimator

__all__ = ["training_batch", "trajectories_a_step"]

_DEFAULT = 64
_RECORDED = "trajectories"


def training_batch(cells: Sequence[StudyCell]) -> int:
    """Trajectories a step of the finished runs that train with a policy gradient, the commonest number; 64 without any.

    The number is the one that the run recorded beside its logs, over all processes. A run without that record (kvar
    before 0.1.0) tells it by its config, as if it had run in one process.

    Args:
        cells: of ``study_cells``.
    """
    runs = [load(cell.path) for cell in cells if cell.finished]
    batches = [trajectories_a_step(run) for run in runs if trained_estimator(run.config) is not None]
    return max(set(batches), key=batches.count) if batches else _DEFAULT


def trajectories_a_step(run: Run) -> int:
    """Those of one run's training steps."""
    return _recorded(run) or _configured(run.config)


def _recorded(run: Run) -> int | None:
    rows = run.read("metrics", ["value"], {"split": "train", "name": _RECORDED})
    return int(rows["value"].iloc[-1]) if len(rows) else None


def _configured(config: Mapping[str, Any]) -> int:
    prompts = int(config.get("per_device_train_batch_size") or 8)
    accumulated = int(config.get("gradient_accumulation_steps") or 1)
    return prompts * accumulated * int(config.get("rollouts_per_prompt") or 1)
