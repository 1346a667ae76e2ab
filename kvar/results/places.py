"""Where a run stands in a grid: its task, student, method and seed, read off its folder and its config."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kvar.records import Run

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Place", "at_places", "place_of", "places_of"]


@dataclass(frozen=True)
class Place:
    """The names of a run.

    Attributes:
        task: of the study's folder, or of the config where the run is in no study of several tasks.
        student: the folder of all of a student's runs.
        method: stage or method.
        seed: of the folder, else of the config; "" where neither names one.
    """

    task: str
    student: str
    method: str
    seed: str

    def __str__(self) -> str:
        """The names that are known, in the order of a study's folders."""
        seed = f"seed {self.seed}" if self.seed else ""
        return " / ".join(part for part in (self.task, self.student, self.method, seed) if part)


def place_of(run: Run) -> Place:
    """Task, student, method and seed of a run in ``[TASK/]STUDENT/METHOD[/seed-N]``."""
    folder = run.path.resolve()
    parts = list(folder.parts)
    seed = str(run.config.get("seed", ""))
    numbered = re.fullmatch(r"seed-(\d+)", parts[-1])
    if numbered:
        seed = numbered.group(1)
        parts.pop()
    root = next((parent for parent in folder.parents[:5] if (parent / "study.json").is_file()), None)
    of_study = parts[len(root.parts) :] if root else []
    task = "/".join(of_study[:-2]) or str(run.config.get("task", ""))
    return Place(task, parts[-2], parts[-1], seed)


def places_of(runs: Sequence[Run]) -> list[Place]:
    """The place of every run; where two would be the same, the student is called by its whole folder."""
    places = [place_of(run) for run in runs]
    return [
        place if places.count(place) == 1 else replace(place, student=str(run.path.resolve().parent))
        for run, place in zip(runs, places, strict=True)
    ]


def at_places(frame: pd.DataFrame, names: Sequence[str], places: Sequence[Place]) -> pd.DataFrame:
    """A statistics frame whose students are runs, with the columns task, student, method and seed of those runs.

    Args:
        frame: a statistics frame.
        names: what its column "student" calls the runs.
        places: of the runs, in the same order.
    """
    where = dict(zip(names, places, strict=True))
    each = [where[name] for name in frame["student"]]
    fields = {field: [getattr(place, field) for place in each] for field in ("task", "student", "method", "seed")}
    return frame.assign(**fields)
