"""Part files: a table is a folder of ``part-000001.parquet``, ``part-000002.parquet``, ..., each complete or absent.

A part is written under a temporary name and then renamed, so that a reader never sees half of one. Other damage (a full
disk, an interrupted copy) shows in the file itself: a Parquet file begins and ends with ``PAR1``.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kvar.records.errors import RecordsError, RecordsWarning
from kvar.records.schema import SCHEMA_VERSION, schema_of

__all__ = [
    "Part", "check_version", "list_parts", "read_groups", "read_part", "readable_parts", "replace_file", "write_part",
]  # fmt: skip

_NAME = re.compile(r"part-(\d{6,})\.parquet")
_MAGIC = b"PAR1"


@dataclass(frozen=True)
class Part:
    """One part file.

    Attributes:
        path: the file.
        number: its place among the table's parts.
        key: the key it was appended under (JSON), or None.
        ranges: column -> (smallest, largest) value, for columns with statistics in every row group.
    """

    path: Path
    number: int
    key: str | None
    ranges: Mapping[str, tuple[Any, Any]] = field(default_factory=dict, repr=False)

    def may_hold(self, column: str, values: Sequence[object]) -> bool:
        """Whether the part can hold a row with one of the values, by the file's statistics."""
        low, high = self.ranges.get(column, (None, None))
        try:
            return low is None or any(low <= value <= high for value in values)
        except TypeError:  # values of another type: the reader names it
            return True

    def single(self, columns: Sequence[str]) -> tuple[Any, ...] | None:
        """The value of each of these columns if it is the same in all rows, else None."""
        ranges = [self.ranges.get(column, (0, 1)) for column in columns]
        return tuple(low for low, _ in ranges) if all(low == high for low, high in ranges) else None


def check_version(version: object, where: Path) -> None:
    """Refuse records written by a later kvar than this one.

    Raises:
        RecordsError: ``version`` is no schema version, or a newer one than ``SCHEMA_VERSION``.
    """
    if not isinstance(version, int) or version < 1:
        raise RecordsError(f"{where}: no schema version of kvar records ({version!r}); the file is not kvar's.")
    if version > SCHEMA_VERSION:
        raise RecordsError(
            f"{where}: written under records schema {version}; this kvar reads up to {SCHEMA_VERSION}. Upgrade kvar."
        )


def replace_file(path: Path, content: bytes | memoryview) -> None:
    """Write ``content`` to ``path`` atomically: after a crash the file is the old or the new one, never a mixture."""
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
    _sync_folder(path.parent)


def write_part(folder: Path, number: int, table: str, rows: pa.Table, key: str | None) -> Part:
    """Write ``rows`` as part ``number`` of ``table``, atomically; an existing part of that number is replaced."""
    metadata = {"kvar.table": table, "kvar.schema": str(SCHEMA_VERSION)} | ({} if key is None else {"kvar.key": key})
    floats = [field.name for field in rows.schema if pa.types.is_floating(field.type)]
    texts = [field.name for field in rows.schema if pa.types.is_dictionary(field.type)]
    sink = pa.BufferOutputStream()
    pq.write_table(
        rows.replace_schema_metadata(metadata),
        sink,
        compression="zstd",
        use_dictionary=texts,
        use_byte_stream_split=floats,
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"part-{number:06d}.parquet"
    replace_file(path, memoryview(sink.getvalue()))
    return Part(path, number, key)


def list_parts(folder: Path) -> list[tuple[int, Path]]:
    """The part files in a table's folder in order of their numbers; hidden (unfinished) files are skipped.

    Raises:
        RecordsError: a visible file is not a part.
    """
    if not folder.is_dir():
        return []
    parts = []
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise RecordsError(f"{path}: not a part of kvar's records; move it out of the run's table folders.")
        parts.append((int(match[1]), path))
    return sorted(parts)


def readable_parts(folder: Path, table: str) -> list[Part]:
    """Open and check the footer of every part.

    Args:
        folder: the table's folder; may be missing.
        table: the table that the parts must belong to.

    Returns:
        The parts in order. A truncated last part is left out with a ``RecordsWarning``.

    Raises:
        RecordsError: a part that is not the last is truncated, or any is foreign or of a newer schema.
    """
    parts = []
    listed = list_parts(folder)
    for number, path in listed:
        try:
            with pq.ParquetFile(path) as file:
                parts.append(Part(path, number, _check(path, table, file.schema_arrow), _ranges(file.metadata)))
        except (pa.ArrowInvalid, OSError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            if not _truncated(path):
                raise RecordsError(f"{path}: not a Parquet file ({error}); move it out of the run's folder.") from error
            if number != listed[-1][0]:
                raise RecordsError(
                    f"{path}: truncated, with later parts behind it. Restore it, or delete it and do without its rows."
                ) from error
            warnings.warn(f"{path}: truncated; its rows are left out.", RecordsWarning, stacklevel=3)
    return parts


def read_part(part: Part, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of one checked part, some columns only if asked."""
    with pq.ParquetFile(part.path) as file:
        return file.read(columns=None if columns is None else list(columns)).replace_schema_metadata(None)


def read_groups(part: Part, columns: Sequence[str]) -> Iterator[pa.Table]:
    """The rows of one checked part, a row group (about a million rows) at a time."""
    with pq.ParquetFile(part.path) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, columns=list(columns)).replace_schema_metadata(None)


def _ranges(metadata: pq.FileMetaData) -> dict[str, tuple[Any, Any]]:
    """Smallest and largest value of text and integer columns with statistics."""
    ranges: dict[str, tuple[Any, Any]] = {}
    if not metadata.num_row_groups:
        return ranges
    for column in range(metadata.num_columns):
        name = metadata.schema.column(column).name
        stats = [metadata.row_group(g).column(column).statistics for g in range(metadata.num_row_groups)]
        if all(s is not None and s.has_min_max and isinstance(s.min, (int, str)) for s in stats):
            ranges[name] = (min(s.min for s in stats), max(s.max for s in stats))
    return ranges


def _check(path: Path, table: str, schema: pa.Schema) -> str | None:
    metadata = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    version = metadata.get("kvar.schema", "")
    check_version(int(version) if version.isdigit() else None, path)
    if metadata.get("kvar.table") != table:
        raise RecordsError(f"{path}: holds the table {metadata.get('kvar.table')!r}, not {table!r}; move it away.")
    if not schema.equals(schema_of(table)):
        expected = ", ".join(schema_of(table).names)
        raise RecordsError(f"{path}: its columns are not those of {table}, {expected}; move it away.")
    return metadata.get("kvar.key")


def _truncated(path: Path) -> bool:
    """Whether a file that does not open begins like a Parquet file, so that its end may be missing."""
    with open(path, "rb") as stream:
        head = stream.read(len(_MAGIC))
    return _MAGIC.startswith(head)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # folders have no descriptor on Windows, and os.replace is durable
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
