"""The numbers of cells whose run folders are gone, or on another machine, from an earlier report of the same study."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kvar.intervals import Interval
from kvar.records.parts import replace_file
from kvar.results.outcomes import KEYS, Key, StudyValues, cells_frame, key_of
from kvar.results.study_cells import StudyCell

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MADE_WITH", "EarlierReport", "earlier_notes", "read_earlier", "with_earlier", "write_made_with"]

_TABLES = ("outcomes", "curves", "statistics")
MADE_WITH = "made-with.json"
"""File of a study's report: the settings that its numbers were formed with, and the teachers' scores."""


@dataclass(frozen=True)
class EarlierReport:
    """An earlier report's numbers.

    Attributes:
        folder: where they lie.
        batch: B that efficiency and error were formed for.
        reference: estimator that stood for the true gradient, or None for the unbiased ones.
        teachers: task -> metric -> the teacher's score.
        values: of the cells that were finished then.
    """

    folder: Path
    batch: int
    reference: str | None
    teachers: Mapping[str, Mapping[str, Interval]]
    values: StudyValues


def write_made_with(
    folder: str | Path,
    cells: Sequence[StudyCell],
    *,
    batch: int,
    reference: str | None,
    teachers: Mapping[str, Mapping[str, Interval]],
) -> None:
    """Write :data:`MADE_WITH`, which a later report needs beside the numbers; an unknown end of an interval is null."""
    scores = {
        task: {
            name: [score.value, *((score.low, score.high) if score.known else (None, None))]
            for name, score in metrics.items()
        }
        for task, metrics in teachers.items()
    }
    settings = {"/".join(map(str, key_of(cell))): cell.settings for cell in cells}
    content = {"batch": batch, "reference": reference, "teachers": scores, "settings": settings}
    replace_file(Path(folder) / MADE_WITH, (json.dumps(content, indent=1) + "\n").encode())


def read_earlier(folder: str | Path, cells: Sequence[StudyCell]) -> EarlierReport:
    """What an earlier report of a study wrote.

    Args:
        folder: output of the earlier ``kvar report``.
        cells: of the study, as it is now; a cell's start and estimator are taken from here.

    Raises:
        ValueError: a missing or damaged file, or numbers of a cell that the study does not have, or has with other
            settings.
    """
    import pandas as pd

    folder = Path(folder)
    tables: dict[str, pd.DataFrame] = {}
    try:
        made: dict[str, Any] = json.loads((folder / MADE_WITH).read_text(encoding="utf-8"))
        batch, reference = int(made["batch"]), made["reference"]
        teachers = {
            task: {
                name: Interval(value, *(() if low is None else (low, high)))
                for name, (value, low, high) in scores.items()
            }
            for task, scores in made["teachers"].items()
        }
        settings = dict(made["settings"])
        for name in _TABLES:
            tables[name] = _plain(pd.read_parquet(folder / f"{name}.parquet"))
    except FileNotFoundError as error:
        raise ValueError(
            f"earlier {folder} lacks {Path(error.filename).name}; name a folder that kvar report wrote of this study."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"earlier {folder} is not what kvar report writes of a study: {error}.") from None
    planned = {key_of(cell): cell for cell in cells}
    done = set(_keys(tables["outcomes"]))
    for key in sorted(done):
        name = "/".join(map(str, key))
        if key not in planned or planned[key].settings != settings.get(name):
            why = "is no cell of this study" if key not in planned else "has other settings in this study"
            raise ValueError(
                f"earlier {folder} has {name.strip('/')} (task, student, method, seed), which {why}; name a report of "
                "the same study, or leave it out."
            )
    cells_then = _cells(planned, done, tables["statistics"])
    values = StudyValues(cells_then, tables["outcomes"], tables["curves"], tables["statistics"])
    return EarlierReport(folder, batch, reference, teachers, values)


def with_earlier(
    values: StudyValues | None, earlier: EarlierReport, *, batch: int, reference: str | None
) -> StudyValues:
    """The study's own numbers, and the earlier report's for cells that are not finished here; in the study's order.

    Args:
        values: of the cells that are finished here; None where none is.
        earlier: of :func:`read_earlier`.
        batch: B that ``values`` were formed for.
        reference: as for ``values``.

    Raises:
        ValueError: formed for another batch or reference, or of a student of another size.
    """
    import pandas as pd

    for name, now, then in (("batch", batch, earlier.batch), ("reference", reference, earlier.reference)):
        if now != then:
            remedy = f"leave --{name} out" if then is None else f"report with --{name} {then!r}"
            raise ValueError(
                f"earlier {earlier.folder} was formed with {name} {then}, this report with {now}: {remedy}, or leave "
                "the earlier report out."
            )
    if values is None:
        return earlier.values
    _same_sizes(values.cells, earlier)
    ours, before = ({_key(row): row for row in table.cells.to_dict("records")} for table in (values, earlier.values))
    rows = {key: row if row["finished"] else before[key] for key, row in ours.items()}
    order = {key: number for number, key in enumerate(rows)}

    def joined(table: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
        if not len(other):
            return table
        both = pd.concat([table, other[[not ours[key]["finished"] for key in _keys(other)]]], ignore_index=True)
        return both.iloc[np.argsort([order[key] for key in _keys(both)], kind="stable")].reset_index(drop=True)

    outcomes, curves, measured = (joined(getattr(values, name), getattr(earlier.values, name)) for name in _TABLES)
    return StudyValues(pd.DataFrame(list(rows.values())), outcomes, curves, measured, values.left_out)


def earlier_notes(values: StudyValues, cells: Sequence[StudyCell], folder: str | Path) -> list[str]:
    """Sentences on the cells that are an earlier report's: how many, and which are no longer beside their start.

    Args:
        values: of :func:`with_earlier`.
        cells: of the study; those that are finished here are no longer the earlier report's.
        folder: of the earlier report.
    """
    finished = {key_of(cell) for cell in cells if cell.finished}
    taken = [row for row in values.cells.to_dict("records") if row["finished"] and _key(row) not in finished]
    apart = sorted(
        "/".join(map(str, _key(row))).strip("/") for row in taken if _key({**row, "method": row["start"]}) in finished
    )
    notes = [
        f"The numbers of {len(taken)} cells are those of the earlier report in {folder}; what their students wrote and "
        "how they were set is not shown on the page."
    ]
    if apart:
        notes.append(
            f"Beware: the start of {len(apart)} of these cells was trained again here, so their differences are not "
            f"paired: {', '.join(apart[:12])}{' and others' if len(apart) > 12 else ''}."
        )
    return notes


def _same_sizes(cells: pd.DataFrame, earlier: EarlierReport) -> None:
    """ValueError for a student that has another number of parameters in the earlier report."""
    sizes = [table.groupby(["task", "student"])["parameters"].max() for table in (earlier.values.cells, cells)]
    then, now = sizes[0].dropna().align(sizes[1].dropna(), join="inner")
    if len(other := then[then != now]):
        task, student = other.index[0]
        raise ValueError(
            f"student {student!r} of task {task!r} has {now.loc[task, student]:.0f} parameters here and "
            f"{other.iloc[0]:.0f} in earlier {earlier.folder}: that is a report of another study."
        )


def _key(row: Mapping[Any, Any]) -> Key:
    return row["task"], row["student"], row["method"], row["seed"]


def _keys(table: pd.DataFrame) -> list[Key]:
    return list(zip(*(table[key] for key in KEYS), strict=True))


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """Categories as text and 32 bits as 64, as in a table just read from runs."""
    kinds = {"category": "str", "float32": "float64"}
    return table.astype({str(name): kinds[str(kind)] for name, kind in table.dtypes.items() if str(kind) in kinds})


def _cells(planned: Mapping[Key, StudyCell], done: set[Key], statistics: pd.DataFrame) -> pd.DataFrame:
    """The ``cells`` of ``StudyValues``; sizes, and which estimators were probed, are those of the statistics."""
    rows = statistics.to_dict("records")
    sizes = {(row["task"], row["student"]): row["parameters"] for row in rows}
    probed = {(_key(row), row["kernel"]) for row in rows}
    known = {
        key: {
            "parameters": float(sizes.get(key[:2], math.nan)),
            "estimator": cell.estimator,
            "probed": (key, cell.estimator) in probed,
        }
        for key, cell in planned.items()
        if key in done
    }
    return cells_frame(list(planned.values()), known)
