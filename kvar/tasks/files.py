"""Read the rows of a local json, jsonl, csv or parquet file, gzipped or not."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["SUFFIXES", "Row", "find_split", "read_rows"]

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
GZIP = b"\x1f\x8b"
Row = tuple[int, dict[str, Any]]


def find_split(folder: Path, split: str) -> Path | None:
    """The one file of ``folder`` named after ``split`` with a known suffix, or None.

    Raises:
        ValueError: several such files, or only files of another type.
    """
    names = [folder / f"{split}{suffix}{gz}" for suffix in SUFFIXES for gz in ("", ".gz")]
    paths = [path for path in names if path.exists() or path.is_symlink()]
    if len(paths) > 1:
        raise ValueError(f"{folder} holds several files for {split!r}: {', '.join(p.name for p in paths)}. Keep one.")
    others = sorted(path.name for path in folder.glob(f"{split}.*") if path.is_file())
    if not paths and others:
        raise ValueError(
            f"{folder / others[0]} is of a type that cannot be read; write it as one of {', '.join(SUFFIXES)}, "
            "gzipped (.gz) or not."
        )
    return paths[0] if paths else None


def read_rows(path: Path) -> list[Row]:
    """The rows of a file with their numbers: the line in jsonl and csv, else counted from 1.

    Text is UTF-8, with or without a byte-order mark; lines end in LF or CRLF only; blank lines are skipped.

    Raises:
        ValueError: the file cannot be read as what its name says.
    """
    kind = path.name.removesuffix(".gz").rsplit(".", 1)[-1]
    content = _content(path)
    if kind == "parquet":
        return list(enumerate(_parquet(path, content), start=1))
    text = _text(path, content)
    if kind == "json":
        return list(enumerate(_objects(path, text), start=1))
    return list(_comma_separated(path, text) if kind == "csv" else _json_lines(path, text))


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}.") from error
    if path.suffix != ".gz":
        if content.startswith(GZIP):
            raise ValueError(f"{path} cannot be read: it is gzipped; name it {path.name}.gz.")
        return content
    if not content.startswith(GZIP):
        raise ValueError(f"{path} cannot be read: it is not gzipped; leave .gz out of its name, or gzip it.")
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read, it is broken or incomplete: {error}. Copy it again.") from error


def _text(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise ValueError(f"{path} is UTF-16 text; save it as UTF-8.") from error
        byte = content[error.start]
        raise ValueError(f"{path} line {line} is not UTF-8 (byte 0x{byte:02x}); save the file as UTF-8.") from error


def _parquet(path: Path, content: bytes) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    try:
        return list(pq.read_table(io.BytesIO(content)).to_pylist())
    except (ValueError, OSError, NotImplementedError) as error:  # pyarrow's errors are kinds of these
        raise ValueError(f"{path} cannot be read as parquet: {' '.join(str(error).split())}") from error


def _parsed(text: str) -> Any:
    """JSON in which no object names a field twice."""
    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"field {next(name for name in names if names.count(name) > 1)!r} occurs twice")
    return row


def _objects(path: Path, text: str) -> list[dict[str, Any]]:
    try:
        content = _parsed(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}. One object a line is read under the name .jsonl.") from error
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise ValueError(f"{path} must hold a list of objects; write one object a line and name it .jsonl otherwise.")
    return content


def _comma_separated(path: Path, text: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    limit = csv.field_size_limit(max(len(text), 1))
    try:
        header = next(reader, [])
        twice = [name for name in header if header.count(name) > 1]
        if twice:
            raise ValueError(f"{path} line 1 names field {twice[0]!r} twice; give every column its own name.")
        for cells in reader:
            if len(cells) == len(header):
                yield reader.line_num, dict(zip(header, cells, strict=True))
            elif any(cell.strip() for cell in cells):
                more = "more" if len(cells) > len(header) else "fewer"
                raise ValueError(
                    f"{path} line {reader.line_num} has {more} cells than the header has names ({', '.join(header)}): "
                    f"{len(cells)}, not {len(header)}; put cells that contain commas in quotation marks."
                )
    except csv.Error as error:
        raise ValueError(
            f"{path} line {reader.line_num} cannot be read as csv: {error}. Write quotation marks inside a quoted cell "
            "twice, and close every one that opens a cell."
        ) from error
    finally:
        csv.field_size_limit(limit)


def _json_lines(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removeprefix("\ufeff")  # where files were concatenated
        if not line.strip():
            continue
        try:
            row = _parsed(line)
        except (ValueError, RecursionError) as error:
            hint = " A list of objects is read under the name .json." if number == 1 and line.startswith("[") else ""
            raise ValueError(f"{path} line {number} is not JSON: {error}.{hint}") from error
        if not isinstance(row, dict):
            hint = "; a list of objects is read under the name .json" if isinstance(row, list) else ""
            raise ValueError(
                f"{path} line {number} must be an object with named fields; got {type(row).__name__}{hint}."
            )
        yield number, row
