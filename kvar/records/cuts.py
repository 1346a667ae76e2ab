"""Remove rows from a run: those past a checkpoint, or those of an earlier training that a new one supersedes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from kvar.records.parts import Part, read_part, readable_parts, write_part
from kvar.records.schema import TABLES, schema_of

__all__ = ["Removed", "owner_column", "remove_rows"]


@dataclass
class Removed:
    """The rows that were removed.

    Attributes:
        rows: how many, over all tables.
        steps: their smallest and largest step.
        keys: by table, those of parts of which no row is left.
    """

    rows: int = 0
    steps: tuple[int, int] = (0, 0)
    keys: dict[str, list[str]] = field(default_factory=dict)

    def add(self, table: str, steps: pa.ChunkedArray, key: str | None) -> None:
        """Count the removed rows of one part; ``key`` is given where all of its rows were removed."""
        low, high = pc.min_max(steps).as_py().values()
        self.steps = (min(low, self.steps[0]), max(high, self.steps[1])) if self.rows else (low, high)
        self.rows += len(steps)
        if key is not None:
            self.keys.setdefault(table, []).append(key)


def owner_column(table: str) -> str:
    """The column that says what a table's rows belong to: a probe or, among metrics, a split."""
    return "probe" if "probe" in schema_of(table).names else "split"


def remove_rows(
    run: Path,
    after: int,
    *,
    owners: Sequence[str] = (),
    newest: Mapping[str, int] | None = None,
    spare: Callable[[Part], None] | None = None,
    removed: Removed | None = None,
) -> Removed:
    """Remove the rows of every table whose step is greater than ``after``.

    Args:
        run: the run's folder.
        after: the last step to keep.
        owners: only rows of these probes and splits; empty for all rows.
        newest: by table, the number of the last part to look at; None for all parts.
        spare: called with each part before rows are removed from it.
        removed: counts to add to.
    """
    removed = Removed() if removed is None else removed
    for table in TABLES:
        for part in readable_parts(run / table, table):
            known = newest is None or part.number <= newest[table]
            if known and part.ranges.get("step", (0, after + 1))[1] > after:
                _cut_part(part, table, after, tuple(owners), spare, removed)
    return removed


def _cut_part(
    part: Part, table: str, after: int, owners: tuple[str, ...], spare: Callable[[Part], None] | None, removed: Removed
) -> None:
    owner = owner_column(table)
    columns = read_part(part, ["step", owner])
    goes = pc.greater(columns["step"], after)
    if owners:
        goes = pc.and_(goes, pc.is_in(columns[owner].cast(pa.string()), value_set=pa.array(owners)))
    if not pc.any(goes).as_py():
        return
    if spare is not None:
        spare(part)
    kept = read_part(part).filter(pc.invert(goes))
    if len(kept):
        write_part(part.path.parent, part.number, table, kept.cast(schema_of(table)), part.key)
    else:
        part.path.unlink()
    removed.add(table, columns["step"].filter(goes), None if len(kept) else part.key)
