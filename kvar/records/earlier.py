"""What an earlier training left in a run's folder, once a new one is written there."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pyarrow as pa

from kvar.records.cuts import Removed, owner_column, remove_rows
from kvar.records.errors import RecordsWarning
from kvar.records.parts import Part, list_parts
from kvar.records.schema import TABLES

__all__ = ["EarlierRows"]

ASIDE = ".{}.earlier"
"""A part's name as it is set aside; readers pass over hidden files."""


class EarlierRows:
    """The rows that were there when a writer came, and their making way.

    Args:
        run: the run's folder.
        settled: whether it is known that they all stay.

    Attributes:
        newest: by table, the number of the last part that was there.
        taken: by table, numbers that no new part gets: another writer of this process may still know their parts.
    """

    def __init__(self, run: Path, settled: bool) -> None:
        self.run = run
        self.newest = {table: max((n for n, _ in list_parts(run / table)), default=0) for table in TABLES}
        self.taken = dict.fromkeys(TABLES, 0)
        self.settled = settled or not any(self.newest.values())
        self._met: set[str] = set()
        self._began: set[str] = set()
        self._copies: list[Path] | None = None  # None before the first, which takes the place of an earlier time's

    def appended(self, table: str, rows: pa.Table) -> Removed:
        """Rows are about to be appended: what their probe or split has of their first step and later makes way."""
        removed = Removed()
        if self.settled:
            return removed
        owner = owner_column(table)
        pairs = pa.table({"owner": rows[owner].cast(pa.string()), "step": rows["step"]})
        first = pairs.group_by("owner").aggregate([("step", "min")]).to_pydict()
        for name, step in zip(first["owner"], first["step_min"], strict=True):
            if name not in self._met:
                self._met.add(name)
                remove_rows(
                    self.run, step - 1, owners=[name], newest=self.newest, spare=self._set_aside, removed=removed
                )
        self._say(removed)
        return removed

    def training_begins(self, names: tuple[str, ...]) -> Removed:
        """A training starts that writes these probes and splits."""
        removed = Removed()
        if not self.settled:
            remove_rows(self.run, -1, newest=self.newest, spare=self._set_aside, removed=removed)
        self.settled = True
        for name in names:
            newest = None if name in self._began else self.newest
            remove_rows(self.run, -1, owners=[name], newest=newest, spare=self._set_aside, removed=removed)
        self._began.update(names)
        self._say(removed)
        return removed

    def training_goes_on(self, names: tuple[str, ...]) -> None:
        """A resumed training writes these probes and splits; what it repeats has been dropped."""
        self.settled = True
        self._began.update(names)

    def _set_aside(self, part: Part) -> None:
        if self._copies is None:
            self._copies = []
            for old in self.run.glob(f"*/{ASIDE.format('part-*.parquet')}*"):
                old.unlink()
        self.taken = self.newest
        name, number = ASIDE.format(part.path.name), 1
        while (copy := part.path.with_name(name if number == 1 else f"{name}-{number}")).exists():
            number += 1
        shutil.copyfile(part.path, copy)
        self._copies.append(copy)

    def _say(self, removed: Removed) -> None:
        if removed.rows:
            low, high = removed.steps
            warnings.warn(
                f"{self.run}: {removed.rows:,} rows of step{f' {low}' if low == high else f's {low} to {high}'} are of "
                "an earlier training; the new one supersedes them. They are set aside in hidden files "
                "(.part-*.parquet.earlier); RunWriter(..., keep=True) adds to a run instead.",
                RecordsWarning,
                stacklevel=4,
            )
