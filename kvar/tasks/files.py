"""Rows of one local json, jsonl, csv or parquet file, gzipped or not."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["SUFFIXES", "Row", "find_split", "read_rows"]

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
Row = tuple[int, dict[str, Any]]


def find_split(folder: Path, split: str) -> Path | None:
    """The one file of ``folder`` named after ``split`` with a suffix we read, or None.

    Raises:
        ValueError: several files qualify, or the only file so named is of another type.
    """
    wanted = [folder / f"{split}{suffix}{gz}" for suffix in SUFFIXES for gz in ("", ".gz")]
    found = [path for path in wanted if path.exists()]
    if len(found) > 1:
        raise ValueError(f"{folder} holds several files for {split!r}: {', '.join(p.name for p in found)}. Keep one.")
    others = sorted(path.name for path in folder.glob(f"{split}.*") if path.is_file())
    if not found and others:
        raise ValueError(
            f"{folder / others[0]} is of a type that cannot be read; write it as one of {', '.join(SUFFIXES)}, "
            "gzipped (.gz) or not."
        )
    return found[0] if found else None


def read_rows(path: Path) -> list[Row]:
    """The rows of a file, each with its number: the line of jsonl and csv, else counted from 1.

    Raises:
        ValueError: the file cannot be read as what its name says; the message names file and line.
    """
    kind = path.name.removesuffix(".gz").rsplit(".", 1)[-1]
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if kind == "parquet":
            return list(enumerate(_parquet(content), start=1))
        text = content.decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}.") from error
    except ValueError as error:  # pyarrow's errors are ValueErrors
        raise ValueError(f"{path} cannot be read as {kind}: {error}.") from error
    if kind == "json":
        return list(enumerate(_objects(path, text), start=1))
    return list(_comma_separated(path, text) if kind == "csv" else _json_lines(path, text))


def _parquet(content: bytes) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return list(pq.read_table(io.BytesIO(content)).to_pylist())


def _objects(path: Path, text: str) -> list[dict[str, Any]]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}. One object a line is read under the name .jsonl.") from error
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise ValueError(f"{path} must hold a list of objects; write one object a line and name it .jsonl otherwise.")
    return content


def _comma_separated(path: Path, text: str) -> Iterator[Row]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        for row in reader:
            if None in row:
                raise ValueError(
                    f"{path} line {reader.line_num} has more cells than the header has names "
                    f"({', '.join(reader.fieldnames or ())}); put cells that hold commas in quotation marks."
                )
            yield reader.line_num, dict(row)
    except csv.Error as error:
        raise ValueError(f"{path} line {reader.line_num} cannot be read as csv: {error}.") from error


def _json_lines(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} line {number} is not JSON: {error}.") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path} line {number} must be an object with named fields; got {type(row).__name__}.")
        yield number, row
