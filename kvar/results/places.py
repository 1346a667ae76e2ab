"""Where a run stands in a grid: its task, student, method and seed, read off its folder and its config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING

from kvar.records import Run
from kvar.records.study_folder import cell_parts, study_above

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Place", "at_places", "configured_student", "place_of", "places_of"]


@dataclass(frozen=True)
class Place:
    """The names of a run.

    Attributes:
        task: of the study's folder, or of the config where the run is in no study of several tasks.
        student: the folder of all of a student's runs in a study; else as :func:`configured_student`.
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


def configured_student(run: Run) -> str | None:
    """The student that a run's config names, without the folders before it; None where the run's folder tells more.

    That is in a study, whose folders are named for its students, and where the config names none.
    """
    named = str(run.config.get("student") or "")
    if not named or study_above(run.path.resolve()) is not None:
        return None
    path = PurePath(named)
    return path.parent.name if path.name == "model" and path.parent.name else path.name


def place_of(run: Run) -> Place:
    """Task, student, method and seed of a run in ``[TASK/]STUDENT/METHOD[/seed-N]``, or of one that stands alone."""
    folder = run.path.resolve()
    root = study_above(folder)
    task = cell_parts(folder.relative_to(root).as_posix())[0] if root else ""
    _, student, method, seed = cell_parts(folder.as_posix())
    of_config = {name: str(run.config.get(name, "")) for name in ("task", "seed")}
    return Place(task or of_config["task"], configured_student(run) or student, method, seed or of_config["seed"])


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
