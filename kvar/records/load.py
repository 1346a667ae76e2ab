"""Read a run: finished, still running, or killed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from kvar.records.errors import RecordsError
from kvar.records.parts import Part, check_version, read_part, readable_parts
from kvar.records.schema import TABLES, schema_of

__all__ = ["CONFIG", "CUT", "Run", "load", "pending_cut", "read_config"]

CONFIG = "config.json"
CUT = "cut.json"
_RETRIES = 20

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """A run's records. Frames are read when first asked for and then kept; ``load`` again to see later rows.

    Attributes:
        path: the run's folder.
        config: what the run was started with.
        version: the kvar version that wrote it.
        created: when it was started, ISO 8601.
    """

    path: Path
    config: dict[str, Any]
    version: str
    created: str

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
    def metrics(self) -> pd.DataFrame:
        """One row per step, split and name of a scalar."""
        return self.read("metrics")

    def read(
        self,
        table: str,
        columns: Sequence[str] | None = None,
        where: Mapping[str, object] | None = None,
    ) -> pd.DataFrame:
        """Read part of a table without holding the whole of it: for tables of many millions of rows.

        Args:
            table: one of ``TABLES``.
            columns: the columns wanted, in this order; all by default.
            where: column -> a value, or a list of values: only rows that hold one of them.

        Returns:
            The rows in the order of their appending; no rows, but typed columns, where there are none.

        Raises:
            RecordsError: no such table or column, or a damaged, foreign or newer part file.
        """
        schema, where = schema_of(table), dict(where or {})
        wanted = list(schema.names if columns is None else columns)
        for name in [*wanted, *where]:
            if name not in schema.names:
                raise RecordsError(f"no column {name!r} in {table}; it has {', '.join(schema.names)}.")
        needed = list(dict.fromkeys([*wanted, *where, "step"]))

        def attempt() -> list[pa.Table]:
            cut = pending_cut(self.path)
            rows = (read_part(part, needed) for part in readable_parts(self.path / table, table))
            return [_filter(chunk, where, cut).select(wanted) for chunk in rows]

        empty = pa.schema([schema.field(name) for name in wanted]).empty_table()
        return pa.concat_tables([empty, *_while_written(attempt)]).to_pandas(self_destruct=True)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, kvar {self.version}, created {self.created})"


def load(path: str | Path) -> Run:
    """Open the records of a run, whether it finished, still writes, or was killed.

    Args:
        path: the run's folder.

    Returns:
        Its records; every part file has been opened and checked. A truncated last part costs its rows and gives a
        ``RecordsWarning``.

    Raises:
        RecordsError: no run is there; or a file is damaged, foreign, or of a newer schema (the message names it).
    """
    folder = Path(path)
    header = read_config(folder)
    if header is None:
        reason = "holds no config.json" if folder.is_dir() else "is not a folder"
        raise RecordsError(f"no run at {folder}: it {reason}. Name the folder that a run was written to.")

    def check() -> dict[str, list[Part]]:
        return {table: readable_parts(folder / table, table) for table in TABLES}

    _while_written(check)
    return Run(folder, header["config"], str(header.get("kvar", "")), str(header.get("created", "")))


def read_config(folder: Path) -> dict[str, Any] | None:
    """What ``config.json`` of a run's folder holds (schema, kvar, created, config), or None where there is none.

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
    """The step after which rows no longer count, while ``RunWriter.drop_after`` is removing them; None otherwise."""
    try:
        return int(json.loads((folder / CUT).read_text(encoding="utf-8"))["after"])
    except FileNotFoundError:
        return None


def _filter(rows: pa.Table, where: Mapping[str, object], cut: int | None) -> pa.Table:
    if cut is not None:
        rows = rows.filter(pc.less_equal(rows["step"], cut))
    for name, wanted in where.items():
        values = list(wanted) if isinstance(wanted, (list, tuple, set, frozenset)) else [wanted]
        column = rows[name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        try:
            rows = rows.filter(pc.is_in(column, value_set=pa.array(values, type=column.type)))
        except (pa.ArrowException, TypeError) as error:
            raise RecordsError(f"where: {name} holds {column.type}; cannot look for {wanted!r} ({error}).") from error
    return rows


def _while_written(attempt: Callable[[], T]) -> T:
    """Repeat a reading that a writer pulled a file away from (``drop_after``, ``overwrite``)."""
    for _ in range(_RETRIES):
        try:
            return attempt()
        except FileNotFoundError:
            continue
    return attempt()
