"""What the evaluations of runs say: scores and sample texts, from the evaluation.json of each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kvar.records import Run
from kvar.results.places import Place

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MOST_SAMPLES", "samples_of", "scores_frame"]

MOST_SAMPLES = 60
"""Evaluated texts that a page shows at most."""


def _evaluation(run: Run) -> dict[str, Any]:
    path = run.path / "evaluation.json"
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else {}


def scores_frame(runs: Sequence[Run], places: Sequence[Place]) -> pd.DataFrame:
    """A row a run: task, student, parameters, method, seed, split, examples and one column a metric of its evaluation.

    Args:
        runs: any; those without an evaluation are left out.
        places: of the runs.
    """
    import pandas as pd

    rows = []
    for run, place in zip(runs, places, strict=True):
        found = _evaluation(run)
        if not found:
            continue
        left = {"task": place.task, "student": place.student, "parameters": run.config.get("parameters")}
        rows.append(
            {
                **left,
                "method": place.method,
                "seed": place.seed,
                "split": found.get("split"),
                "examples": found.get("examples"),
                **{str(name): value for name, value in found.get("metrics", {}).items()},
            }
        )
    return pd.DataFrame(rows)


def samples_of(runs: Sequence[Run], places: Sequence[Place], most: int = MOST_SAMPLES) -> list[dict[str, Any]]:
    """The first evaluated texts of every run: up to five, fewer where runs are many, none beyond ``most`` in all.

    Args:
        runs: any.
        places: of the runs.
        most: texts in all.
    """
    found = [
        [{"run": str(place), **sample} for sample in _evaluation(run).get("samples", [])[:5]]
        for run, place in zip(runs, places, strict=True)
    ]
    found = [samples for samples in found if samples]
    each = max(1, min(5, most // max(1, len(found))))
    return [sample for samples in found for sample in samples[:each]][:most]
