"""Write a run's records by atomic appends."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from kvar._version import __version__
from kvar.records.cuts import Removed, remove_rows
from kvar.records.earlier import EarlierRows
from kvar.records.errors import RecordsError, RecordsWarning
from kvar.records.load import CONFIG, CUT, pending_cut, read_config
from kvar.records.lock import lock_folder
from kvar.records.parts import Part, list_parts, readable_parts, replace_file, write_part
from kvar.records.place import check_folder_place
from kvar.records.schema import SCHEMA_VERSION, TABLES, to_arrow
from kvar.records.versions import versions

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Key", "RunWriter", "check_folder"]

Key = str | int | tuple[str | int, ...]


class RunWriter:
    """The writing end of a run's folder: ``config.json`` and one folder of Parquet parts a table.

    A new folder becomes a new run. If the folder holds a run of the same config, the rows of a probe or split from the
    first step appended to it onwards are an earlier training's: they are set aside (in hidden copies of their parts,
    until the next time) with a ``RecordsWarning``. So a notebook cell that is run again leaves the records of its last
    run. A training resumed from a checkpoint keeps the rows up to it: kvar's callbacks call ``begin``, your own loop
    calls ``drop_after``. Also a context manager.

    Args:
        path: the run's folder, made if missing; other files in it are left alone.
        config: the run's settings: JSON types, paths and tuples. Two configs are the same if their JSON is.
        overwrite: delete the records of an existing run, whatever its config.
        defaults: values of fields that an older config does not name.
        keep: keep every existing row, whatever step is appended: to add scores or probes to a run.

    Raises:
        RecordsError: the folder holds another run, records of a newer kvar, or damaged ones; another process writes
            to it; or the config is not JSON.

    Example:
        >>> import tempfile, kvar, pandas as pd
        >>> folder = tempfile.mkdtemp()
        >>> with RunWriter(folder, {"seed": 1}) as run:
        ...     run.append("metrics", pd.DataFrame({"step": [1], "split": ["test"], "name": ["bleu"], "value": [25.0]}))
        >>> kvar.load(folder).metrics.value.item()
        25.0
    """

    def __init__(
        self,
        path: str | Path,
        config: Mapping[str, Any],
        overwrite: bool = False,
        defaults: Mapping[str, Any] | None = None,
        *,
        keep: bool = False,
    ) -> None:
        self.path = Path(path)
        self.config = _plain(config)
        try:
            check_folder_place(self.path, "run")
        except ValueError as error:
            raise RecordsError(str(error)) from None
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock: FileLock | None = lock_folder(self.path)
        if overwrite:
            self._erase()
        header = read_config(self.path)
        if header is None:
            self._start()
        else:
            _same(self.path, _with_defaults(header["config"], self.config, defaults), self.config)
        self._keys: dict[str, dict[str, Part]] = {table: self._adopt(table) for table in TABLES}
        cut = pending_cut(self.path)
        if cut is not None:
            self._finish_cut(cut)
        self._earlier = EarlierRows(self.path, settled=keep)

    def append(self, table: str, frame: pd.DataFrame, key: Key | None = None) -> None:
        """Append rows to a table, atomically: they are on disk when this returns, and none of them if it fails.

        Args:
            table: one of ``TABLES``.
            frame: the table's columns (``kvar.records.schema``), in any order.
            key: identifies the rows, for instance (probe, step): rows appended to this table under the same key are
                replaced, so that repeating an append after a resume adds nothing twice.

        Raises:
            RecordsError: the frame does not fit the table, or the writer was closed.
        """
        self._check_open()
        rows = to_arrow(table, frame)
        if not len(rows) and key is None:
            return
        self._forget(self._earlier.appended(table, rows))
        name = None if key is None else json.dumps(key, default=int)
        known = self._keys[table].get(name) if name is not None else None
        folder = self.path / table
        taken = [self._earlier.taken[table], *(number for number, _ in list_parts(folder))]
        number = known.number if known else max(taken) + 1
        part = write_part(folder, number, table, rows, name)
        if name is not None:
            self._keys[table][name] = part

    def drop_after(self, step: int) -> None:
        """Remove the rows of every table whose step is greater than ``step``: those that a resumed run will repeat.

        Atomic for readers; if the process is killed, the next writer that opens the folder completes it.

        Args:
            step: the last step to keep, that of the checkpoint.

        Raises:
            RecordsError: a part is damaged, or the writer was closed.
        """
        self._check_open()
        replace_file(self.path / CUT, json.dumps({"after": int(step)}).encode())
        self._finish_cut(int(step))
        self._earlier.settled = True

    def begin(self, step: int, *names: str) -> None:
        """Remove what a training that begins, or resumes from a checkpoint, supersedes.

        The first call removes rows that other writers left, of any name; later calls, of other callbacks or another
        training, remove only rows of ``names``, this writer's too if these began a training before.

        Args:
            step: optimiser steps taken before: 0, or the checkpoint's. At 0 rows are set aside with a
                ``RecordsWarning``; past a checkpoint they are removed, since the resumed training repeats them.
            names: probes, and splits of the metrics, that the caller writes.

        Raises:
            RecordsError: a part is damaged, or the writer was closed.
        """
        self._check_open()
        if step <= 0:
            self._forget(self._earlier.training_begins(names))
            return
        if self._earlier.settled:
            self._forget(remove_rows(self.path, step, owners=names))
        else:
            self.drop_after(step)
        self._earlier.training_goes_on(names)

    def close(self) -> None:
        """Release the folder to other processes; later appends are refused. Rows are safe without closing."""
        self._lock = None

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._lock is None:
            raise RecordsError(f"{self.path}: this writer was closed; open another.")

    def _start(self) -> None:
        for table in TABLES:
            if list_parts(self.path / table):
                where = self.path / table
                raise RecordsError(
                    f"{where} holds records with no {CONFIG} beside it. Choose another folder, or overwrite."
                )
        header = {
            "schema": SCHEMA_VERSION,
            "kvar": __version__,
            "versions": versions(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "config": self.config,
        }
        replace_file(self.path / CONFIG, (json.dumps(header, indent=2) + "\n").encode())

    def _erase(self) -> None:
        """Remove the records, config last, so that a folder left by a killed process is refused as another run's."""
        for table in TABLES:
            folder = self.path / table
            for file in [*folder.glob("part-*.parquet"), *folder.glob(".part-*")]:
                file.unlink()
        (self.path / CUT).unlink(missing_ok=True)
        (self.path / CONFIG).unlink(missing_ok=True)

    def _adopt(self, table: str) -> dict[str, Part]:
        """The keyed parts of a table; temporary files are removed and a truncated last part is set aside."""
        folder = self.path / table
        for leftover in folder.glob(".part-*.tmp"):
            leftover.unlink()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RecordsWarning)
            parts = readable_parts(folder, table)
        whole = {part.path for part in parts}
        for _, path in list_parts(folder):
            if path not in whole:
                path.rename(path.with_name(f".{path.name}.truncated"))
                warnings.warn(f"{path}: truncated; set aside, its rows are lost.", RecordsWarning, stacklevel=4)
        return {part.key: part for part in parts if part.key is not None}

    def _finish_cut(self, step: int) -> None:
        self._forget(remove_rows(self.path, step))
        (self.path / CUT).unlink(missing_ok=True)

    def _forget(self, removed: Removed) -> None:
        for table, keys in removed.keys.items():
            for key in keys:
                self._keys[table].pop(key, None)


def check_folder(path: str | Path, config: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> None:
    """Refuse a folder that holds another run, before any work is done; nothing is written.

    Args:
        path: the folder a run would be written to; it need not exist.
        config: fields of the run, all or some of them.
        defaults: values of fields that an older config does not name.

    Raises:
        RecordsError: one of these fields has another value in the folder's run, or the folder is a file.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise RecordsError(f"{folder} is a file; name a folder for the run.")
    header = read_config(folder) if folder.is_dir() else None
    if header is not None:
        given = _plain(config)
        recorded = _with_defaults(header["config"], given, defaults)
        _same(folder, {name: value for name, value in recorded.items() if name in given}, given)


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config as JSON restores it: tuples as lists, paths and keys as text."""

    def other(value: object) -> str:
        if isinstance(value, Path):
            return str(value)
        raise TypeError(f"{type(value).__name__} {value!r}")

    plain: dict[str, Any] = {}
    for name, value in config.items():
        try:
            plain[str(name)] = json.loads(json.dumps(value, default=other))
        except (TypeError, ValueError) as error:
            raise RecordsError(f"config field {name!r} is not JSON: {error}. Pass plain values.") from error
    return plain


def _with_defaults(
    recorded: Mapping[str, Any], given: Mapping[str, Any], defaults: Mapping[str, Any] | None
) -> dict[str, Any]:
    """A folder's config, with defaults for fields of ``given`` that it does not have."""
    return {**{name: value for name, value in _plain(defaults or {}).items() if name in given}, **recorded}


def _same(folder: Path, recorded: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    missing = object()
    differ = [name for name in [*recorded, *given] if recorded.get(name, missing) != given.get(name, missing)]
    if differ:
        name = differ[0]
        pair = f"{name} is {recorded.get(name, '(not set)')!r} there, {given.get(name, '(not set)')!r} here"
        raise RecordsError(
            f"{folder} already holds another run ({pair}; {len(set(differ))} fields differ). "
            "Choose another folder, or overwrite it on purpose."
        )
