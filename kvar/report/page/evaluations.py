"""Scores and sample texts of runs, from their evaluation.json."""

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
"""Most evaluated texts on a page."""


def _evaluation(run: Run) -> dict[str, Any]:
    path = run.path / "evaluation.json"
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}


def scores_frame(runs: Sequence[Run], places: Sequence[Place]) -> pd.DataFrame:
    """One row per run with an evaluation: task, student, parameters, method, seed, split, examples and the metrics."""
    import pandas as pd

    rows = []
    for run, place in zip(runs, places, strict=True):
        evaluation = _evaluation(run)
        if not evaluation:
            continue
        row = {"task": place.task, "student": place.student, "parameters": run.config.get("parameters")}
        row |= {"method": place.method, "seed": place.seed}
        row |= {name: evaluation.get(name) for name in ("split", "examples")}
        rows.append({**row, **evaluation.get("metrics", {})})
    return pd.DataFrame(rows)


def samples_of(runs: Sequence[Run], places: Sequence[Place], most: int = MOST_SAMPLES) -> list[dict[str, Any]]:
    """The first evaluated texts of every run: up to five each, at most ``most`` in all."""
    by_run = [
        [{"run": str(place), **sample} for sample in _evaluation(run).get("samples", [])[:5]]
        for run, place in zip(runs, places, strict=True)
    ]
    by_run = [samples for samples in by_run if samples]
    each = max(1, min(5, most // max(1, len(by_run))))
    return [sample for samples in by_run for sample in samples[:each]][:most]
