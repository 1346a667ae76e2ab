"""Read a run: finished, still running, or killed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from kvar.records.errors import RecordsError
from kvar.records.parts import Part, check_version, read_groups, readable_parts
from kvar.records.schema import TABLES, schema_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CONFIG", "CUT", "Run", "load", "pending_cut", "read_config"]

CONFIG = "config.json"
CUT = "cut.json"
_RETRIES = 20

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """A run's records. Frames are read at first access and then kept; ``load`` again to see later rows.

    Attributes:
        path: the run's folder.
        config: the run's settings.
        version: the kvar version that wrote it.
        versions: of Python, torch and transformers at the start; empty in older runs.
        created: time of the start, ISO 8601.
    """

    path: Path
    config: dict[str, Any]
    version: str
    created: str
    versions: dict[str, str] = field(default_factory=dict, compare=False)
    _parts: dict[str, list[Part]] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def trajectories(self) -> pd.DataFrame:
        """One row per probe, step, trajectory and response token (``kvar.records.schema``)."""
        return self.read("trajectories")

    @cached_property
    def gradients(self) -> pd.DataFrame:
        """One row per probe, step, group, pair of estimators and trajectory: the moments of section 5."""
        return self.read("gradients")

    @cached_property
    def prompt_gradients(self) -> pd.DataFrame:
        """One row per probe, step, group, pair of estimators and prompt: moments of the prompts' mean gradients."""
        return self.read("prompt_gradients")

    @cached_property
    def choices(self) -> pd.DataFrame:
        """One row per probe and step at which an adaptive training chose its estimator, and why."""
        return self.read("choices")

    @cached_property
    def candidates(self) -> pd.DataFrame:
        """One row per probe, step and estimator that an adaptive training chose among: its efficiency."""
        return self.read("candidates")

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row per step, split and name of a scalar."""
        return self.read("metrics")

    def read(
        self, table: str, columns: Sequence[str] | None = None, where: Mapping[str, object] | None = None
    ) -> pd.DataFrame:
        """Read part of a table without holding the whole of it: for tables of many millions of rows.

        Args:
            table: one of ``TABLES``.
            columns: the columns wanted, in this order; all by default.
            where: column -> a value, or a list of values: only rows that hold one of them.

        Returns:
            The rows in the order they were appended; an empty frame with typed columns if there are none.

        Raises:
            RecordsError: no such table or column, or a damaged, foreign or newer part file.
        """
        wanted, needed = _columns(table, columns, where)
        groups = _while_written(
            lambda: list(self._groups(table, wanted, needed, where or {})), lambda: self._parts.pop(table, None)
        )
        empty = pa.schema([schema_of(table).field(name) for name in wanted]).empty_table()
        return pa.concat_tables([empty, *groups]).to_pandas(self_destruct=True)

    def batches(
        self, table: str, columns: Sequence[str] | None = None, where: Mapping[str, object] | None = None
    ) -> Iterator[pa.Table]:
        """The rows of :meth:`read`, same arguments, as Arrow tables of at most about a million rows, one at a time.

        Yields:
            Rows in the order they were appended; no batch holds rows of two appends.

        Raises:
            RecordsError: as :meth:`read`; also if the writer removes rows that are not yet read (then read again).
        """
        wanted, needed = _columns(table, columns, where)
        try:
            yield from self._groups(table, wanted, needed, where or {})
        except FileNotFoundError as error:
            raise RecordsError(
                f"{self.path}: rows of {table} were removed while they were read; load again."
            ) from error

    def measurements(self, table: str = "gradients") -> list[tuple[str, int]]:
        """(probe, step) of every measurement in a table that has these columns, in the order they were appended.

        Raises:
            RecordsError: no such table, or one without the columns probe and step.
        """
        _columns(table, ["probe", "step"], None)
        measured: dict[tuple[str, int], None] = {}
        for part in self._listed(table):
            one = part.single(("probe", "step"))
            if one is not None:
                measured[str(one[0]), int(one[1])] = None
                continue
            for rows in read_groups(part, ["probe", "step"]):
                pairs = rows.group_by(["probe", "step"]).aggregate([]).to_pydict()
                measured |= dict.fromkeys(zip(map(str, pairs["probe"]), pairs["step"], strict=True))
        cut = pending_cut(self.path)
        return [(probe, step) for probe, step in measured if cut is None or step <= cut]

    def _listed(self, table: str) -> list[Part]:
        schema_of(table)  # refuses unknown tables
        if table not in self._parts:
            self._parts[table] = readable_parts(self.path / table, table)
        return self._parts[table]

    def _groups(
        self, table: str, wanted: list[str], needed: list[str], where: Mapping[str, object]
    ) -> Iterator[pa.Table]:
        for part in self._listed(table):
            if any(not part.may_hold(name, _listed_values(value)) for name, value in where.items()):
                continue
            cut = pending_cut(self.path)
            for rows in read_groups(part, needed):
                chosen = _filter(rows, where, cut).select(wanted)
                if len(chosen):
                    yield chosen

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, kvar {self.version}, created {self.created})"


def load(path: str | Path) -> Run:
    """Open the records of a run, whether it finished, still writes, or was killed.

    Args:
        path: the run's folder.

    Returns:
        Its records; every part file is opened and checked. A truncated last part is left out with a
        ``RecordsWarning``.

    Raises:
        RecordsError: the folder holds no run, or a file is damaged, foreign, or of a newer schema (it is named).
    """
    folder = Path(path)
    header = read_config(folder)
    if header is None:
        reason = "holds no config.json" if folder.is_dir() else "is not a folder"
        raise RecordsError(f"no run at {folder}: it {reason}. Name the folder that a run was written to.")
    parts = _while_written(lambda: {table: readable_parts(folder / table, table) for table in TABLES})
    version, created = str(header.get("kvar", "")), str(header.get("created", ""))
    return Run(folder, header["config"], version, created, dict(header.get("versions") or {}), parts)


def read_config(folder: Path) -> dict[str, Any] | None:
    """The content of a run's ``config.json`` (schema, kvar, versions, created, config), or None without one.

    Raises:
        RecordsError: it is unreadable, not kvar's, or of a newer schema.
    """
    path = folder / CONFIG
    if not path.is_file():
        return None
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise RecordsError(f"{path}: not readable as JSON ({error}); restore it, or choose another folder.") from error
    if not isinstance(header, dict) or not isinstance(header.get("config"), dict):
        raise RecordsError(f"{path}: not the config of a kvar run (no field 'config'); choose another folder.")
    check_version(header.get("schema"), path)
    return header


def pending_cut(folder: Path) -> int | None:
    """The step after which ``RunWriter.drop_after`` is removing rows, which then no longer count; None otherwise."""
    try:
        return int(json.loads((folder / CUT).read_text(encoding="utf-8"))["after"])
    except FileNotFoundError:
        return None


def _columns(
    table: str, columns: Sequence[str] | None, where: Mapping[str, object] | None
) -> tuple[list[str], list[str]]:
    """The columns to return, and those to read for them."""
    schema = schema_of(table)
    wanted = list(schema.names if columns is None else columns)
    for name in [*wanted, *(where or {})]:
        if name not in schema.names:
            raise RecordsError(f"no column {name!r} in {table}; it has {', '.join(schema.names)}.")
    return wanted, list(dict.fromkeys([*wanted, *(where or {}), "step"]))


def _listed_values(wanted: object) -> list[object]:
    return list(wanted) if isinstance(wanted, (list, tuple, set, frozenset)) else [wanted]


def _filter(rows: pa.Table, where: Mapping[str, object], cut: int | None) -> pa.Table:
    if cut is not None:
        rows = rows.filter(pc.less_equal(rows["step"], cut))
    for name, wanted in where.items():
        values = _listed_values(wanted)
        column = rows[name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        try:
            rows = rows.filter(pc.is_in(column, value_set=pa.array(values, type=column.type)))
        except (pa.ArrowException, TypeError) as error:
            raise RecordsError(f"where: {name} holds {column.type}; cannot look for {wanted!r} ({error}).") from error
    return rows


def _while_written(attempt: Callable[[], T], forget: Callable[[], object] = lambda: None) -> T:
    """Repeat a reading during which a writer removed a file (``drop_after``, ``overwrite``)."""
    for _ in range(_RETRIES):
        try:
            return attempt()
        except FileNotFoundError:
            forget()
    return attempt()
