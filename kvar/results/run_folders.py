"""The runs in some folders: which there are, what each is called, and the statistics frame of all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvar.analysis.frames.recorded import statistics_of
from kvar.records import TABLES, RecordsError, Run, load
from kvar.records.study_folder import cell_parts
from kvar.results.places import configured_student

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["find_runs", "student_names", "usable_statistics"]


def find_runs(paths: Iterable[str | Path], left_out: dict[str, str] | None = None) -> tuple[list[Run], list[Run]]:
    """The runs in or below some folders: those with gradient probes and those without, in the order of their paths.

    Args:
        paths: folders.
        left_out: where given, runs whose records are damaged are noted here, folder -> reason, and passed over, unless
            there is no other.

    Raises:
        ValueError: a folder that does not exist, or no run anywhere; damaged records.
    """
    runs: dict[Path, Run] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise ValueError(f"{path} is not a folder; name run folders, or folders above them.")
        inside = sorted(p.parent for p in path.rglob("config.json"))
        for folder in inside:
            if any((folder / table).is_dir() for table in TABLES):
                try:
                    runs.setdefault(folder.resolve(), load(folder))
                except RecordsError as error:
                    if left_out is None:
                        raise
                    left_out[str(folder)] = str(error)
    if not runs and left_out:
        raise ValueError(next(iter(left_out.values())))
    if not runs:
        raise ValueError(
            f"no run in {', '.join(map(str, paths))}; name folders that kvar train or kvar study wrote to, or folders "
            "above them."
        )
    probed = [run for run in runs.values() if run.measurements()]
    return probed, [run for run in runs.values() if run not in probed]


def student_names(runs: Sequence[Run]) -> list[str]:
    """A name a run: as many of STUDENT, METHOD and seed-N, its last folders, as tell it from the others.

    STUDENT is that of the config where the run is in no study. Where these are the same for runs of different tasks,
    the folders above stand before.
    """
    parts = []
    above = []
    for run in runs:
        folders = run.path.resolve().parts
        last = 1 if cell_parts(folders[-1])[3] is None else 2
        student = configured_student(run)
        if student is None:
            student, folders = folders[-last - 1], (*folders[: -last - 1], *folders[-last:])
        parts.append((student, *folders[-last:]))
        above.append(folders[:-last])
    names = [path[0] for path in parts]
    for depth in (2, 3):
        names = _longer(names, ["/".join(path[:depth]) for path in parts])
    for depth in range(1, max((len(path) for path in above), default=0)):
        if len(set(names)) == len(names):
            break
        names = _longer(names, ["/".join((*up[-depth:], *path)) for up, path in zip(above, parts, strict=True)])
    return names


def _longer(names: Sequence[str], longer: Sequence[str]) -> list[str]:
    """Names, the longer where one is not alone."""
    return [name if names.count(name) == 1 else more for name, more in zip(names, longer, strict=True)]


def usable_statistics(
    runs: Sequence[Run], names: Sequence[str], left_out: dict[str, str], **options: Any
) -> tuple[pd.DataFrame, list[int]]:
    """The statistics frame of the runs whose probes can be summarised, and which these are.

    Args:
        runs: with probes.
        names: what the frame calls them.
        left_out: the others are noted here: folder -> reason.
        options: passed to ``kvar.analysis.frames.recorded.statistics_of``.

    Raises:
        ValueError: none can be; the first one's reason.
    """
    import pandas as pd

    frames, places, reasons = [], [], {}
    for place, (run, name) in enumerate(zip(runs, names, strict=True)):
        try:
            frames.append(statistics_of(run, name, **options))
            places.append(place)
        except ValueError as error:
            reasons[str(run.path)] = str(error)
    if not frames:
        raise ValueError(next(iter(reasons.values())))
    left_out |= reasons
    return pd.concat(frames, ignore_index=True), places
