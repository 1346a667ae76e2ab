"""Rows of an earlier training in a run's folder, which a new training supersedes."""

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
"""Name of the hidden copy of a part; readers skip hidden files."""


class EarlierRows:
    """The rows that a folder held when a writer opened it, and their removal.

    Args:
        run: the run's folder.
        settled: whether they all stay.

    Attributes:
        newest: by table, the number of the last part at that time.
        taken: by table, the last number that no new part gets: another writer of this process may refer to its part.
    """

    def __init__(self, run: Path, settled: bool) -> None:
        self.run = run
        self.newest = {table: max((n for n, _ in list_parts(run / table)), default=0) for table in TABLES}
        self.taken = dict.fromkeys(TABLES, 0)
        self.settled = settled or not any(self.newest.values())
        self._met: set[str] = set()
        self._began: set[str] = set()
        self._copies: list[Path] | None = None  # None before the first, which replaces earlier copies

    def appended(self, table: str, rows: pa.Table) -> Removed:
        """Remove what a probe or split recorded at or after the first step of the rows about to be appended to it."""
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
        """Remove the rows that a new training, which writes these probes and splits, supersedes."""
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
        """Note that a resumed training writes these probes and splits; rows that it repeats are removed already."""
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
