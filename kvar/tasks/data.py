"""Rows of local json, jsonl, csv and parquet files (gzipped or not) or of a hub data set, checked as they are read."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["find_split", "read_pairs"]

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")


def find_split(folder: Path, split: str) -> Path | None:
    """The one file of ``folder`` named after ``split`` with a suffix we read, or None.

    Raises:
        ValueError: several files qualify.
    """
    wanted = [folder / f"{split}{suffix}{gz}" for suffix in SUFFIXES for gz in ("", ".gz")]
    found = [path for path in wanted if path.exists()]
    if len(found) > 1:
        raise ValueError(f"{folder} holds several files for {split!r}: {', '.join(p.name for p in found)}. Keep one.")
    return found[0] if found else None


def read_pairs(data: str, split: str, source: str, target: str) -> list[tuple[str, str]] | None:
    """The (source, target) texts of one split, or None where the data has no such split.

    Args:
        data: a folder with files such as ``train.jsonl.gz``, or a hub data set's name.
        split: "train", "validation" or "test".
        source: field that holds the prompt.
        target: field that holds the reference.

    Raises:
        ValueError: a file that cannot be read or is empty, a row without the field or with an empty one; the message
            names file, line and field.
    """
    folder = Path(data).expanduser()
    if folder.is_dir():
        path = find_split(folder, split)
        return None if path is None else _pairs(str(path), _rows(path), source, target)
    if folder.suffix or data.startswith((".", "/", "~")):
        raise ValueError(
            f"data {data!r} is not a folder. Give a folder with train/validation/test files or a hub name."
        )
    from datasets import get_dataset_split_names, load_dataset

    try:
        if split not in get_dataset_split_names(data):
            return None
        loaded = load_dataset(data, split=split)
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"data {data!r} is neither a folder nor a hub data set that can be reached: {type(error).__name__}: "
            f"{error}. Give a folder with train/validation/test files."
        ) from error
    rows = enumerate((dict(row) for row in loaded), start=1)
    return _pairs(f"{data} ({split})", rows, source, target)


def _pairs(origin: str, rows: Iterator[tuple[int, dict[str, Any]]], source: str, target: str) -> list[tuple[str, str]]:
    pairs = []
    for line, row in rows:
        values = []
        for field in (source, target):
            if field not in row:
                there = ", ".join(map(str, row))
                raise ValueError(f"{origin} line {line} has no field {field!r}; its fields are: {there}.")
            value = row[field]
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"{origin} line {line}: field {field!r} must be non-empty text; got {value!r}.")
            values.append(value.strip())
        pairs.append((values[0], values[1]))
    if not pairs:
        raise ValueError(f"{origin} is empty: it must hold at least one row with {source!r} and {target!r}.")
    return pairs


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    kind = path.name.removesuffix(".gz").rsplit(".", 1)[-1]
    try:
        if kind == "parquet":
            import pandas

            yield from enumerate(pandas.read_parquet(path).to_dict("records"), start=1)
            return
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8", newline="" if kind == "csv" else None) as file:
            if kind == "csv":
                yield from enumerate(csv.DictReader(file), start=2)
            elif kind == "json":
                yield from enumerate(_objects(path, json.load(file)), start=1)
            else:
                yield from _json_lines(path, file)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}.") from error


def _objects(path: Path, content: Any) -> list[dict[str, Any]]:
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise ValueError(f"{path} must hold a list of objects; write one object a line and name it .jsonl otherwise.")
    return content


def _json_lines(path: Path, file: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} line {number} is not JSON: {error}.") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path} line {number} must be an object with named fields; got {type(row).__name__}.")
        yield number, row
