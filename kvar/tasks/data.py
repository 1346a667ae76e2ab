"""Prompts and references of one split, read from local files or a hub data set and checked."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvar.tasks.files import Row, find_split, read_rows

__all__ = ["Split", "has_split", "open_split"]

INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060\u00ad"  # byte-order mark, zero-width blanks and joiners, soft hyphen
ODD = re.compile("[\0\ud800-\udfff]")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """The rows of one split, not yet checked.

    Attributes:
        origin: a file, or a hub name with its split, for error messages.
        rows: numbered rows of a file, or a ``datasets.Dataset``.
    """

    origin: str
    rows: Any

    def __len__(self) -> int:
        return len(self.rows)

    def pairs(
        self, source: str, target: str, *, start: int = 0, stop: int | None = None, skip_empty: bool = False
    ) -> list[tuple[str, str]]:
        """The (source, target) texts of rows ``start`` to ``stop`` (exclusive; None for the end), blanks stripped.

        Args:
            source: field of the prompt; a dot reads a nested field ("translation.en").
            target: field of the reference, likewise.
            start: first row, by position.
            stop: end of the rows, exclusive.
            skip_empty: leave out rows with an empty field, and log how many, instead of refusing them.

        Raises:
            ValueError: no rows, or a row whose field is missing, empty or not text.
        """
        if not len(self):
            raise ValueError(f"{self.origin} is empty: it must hold at least one row with {source!r} and {target!r}.")
        pairs, skipped = [], 0
        for number, row in self._numbered(start, len(self) if stop is None else min(stop, len(self))):
            texts = [_text(f"{self.origin} line {number}", row, field, skip_empty) for field in (source, target)]
            if all(texts):
                pairs.append((texts[0], texts[1]))
            else:
                skipped += 1
        if skipped:
            log.warning("%s: %d of %d rows skipped for an empty field.", self.origin, skipped, skipped + len(pairs))
        if not pairs and skipped:
            raise ValueError(f"{self.origin}: all {skipped} rows have an empty {source!r} or {target!r}.")
        return pairs

    def _numbered(self, start: int, stop: int) -> Iterator[Row]:
        if isinstance(self.rows, list):
            yield from self.rows[start:stop]
        else:
            for number, row in enumerate(self.rows.select(range(start, stop)), start=start + 1):
                yield number, dict(row)


def open_split(data: str, split: str, subset: str | None = None) -> Split | None:
    """One split of local files or of a hub data set, or None where the data has no such split.

    Args:
        data: a folder with files such as ``train.jsonl.gz``, or a hub data set's name.
        split: "train", "validation" or "test"; no other split's file is opened.
        subset: the hub data set's subset (its "config"), such as "en-nl"; None where it has only one.

    Raises:
        ValueError: no such folder, a file that cannot be read, or a hub data set that cannot be reached.
    """
    folder = _folder(data)
    if folder is not None:
        path = find_split(folder, split)
        return None if path is None else Split(str(path), read_rows(path))
    if not has_split(data, split, subset):
        return None
    from datasets import load_dataset

    try:
        return Split(f"{data} ({split})", load_dataset(data, subset, split=split))
    except (OSError, ValueError, RuntimeError) as error:
        raise _unreachable(data, subset, error) from error


def has_split(data: str, split: str, subset: str | None = None) -> bool:
    """Whether the data has a split of this name; its rows are not read. Errors as of :func:`open_split`."""
    folder = _folder(data)
    if folder is not None:
        return find_split(folder, split) is not None
    from datasets import get_dataset_split_names

    try:
        return split in get_dataset_split_names(data, subset)
    except (OSError, ValueError, RuntimeError) as error:
        raise _unreachable(data, subset, error) from error


def _folder(data: str) -> Path | None:
    """The folder that ``data`` names, or None where it can only be a hub name."""
    folder = Path(data).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise ValueError(
            f"data {data!r} is a file. Give the folder it lies in, with files named train, validation and test."
        )
    if folder.suffix or data.startswith((".", "/", "~")):
        raise ValueError(
            f"data {data!r} is not a folder. Give a folder with train/validation/test files or a hub name (--data "
            "FOLDER); the first lines of a shipped config name its data and their source."
        )
    return None


def _unreachable(data: str, subset: str | None, error: Exception) -> ValueError:
    named = f"data {data!r}" + (f" (data_subset {subset!r})" if subset else "")
    return ValueError(
        f"{named} is neither a folder nor a hub data set that can be reached: {type(error).__name__}: {error}. Give a "
        "folder with train/validation/test files, or check the network, the name and data_subset."
    )


def _text(where: str, row: dict[str, Any], field: str, skip_empty: bool) -> str:
    """The stripped text of a field; "" for an empty one that may be skipped."""
    value: Any = row
    for part in [field] if field in row else field.split("."):
        if not isinstance(value, dict) or part not in value:
            names = ", ".join(map(str, row))
            if len(row) == 1 and re.search("[;\t|]", names):
                raise ValueError(f"{where} has only one field, {names!r}; separate the columns by commas.")
            raise ValueError(
                f"{where} has no field {field!r}; its fields are: {names}. Set source_field and target_field to two of "
                "them (a dot reads a nested one)."
            )
        value = value[part]
    text = value.strip() if isinstance(value, str) else ""
    seen = bool(text.strip(INVISIBLE))
    empty = value is None or (isinstance(value, str) and not seen) or value != value  # NaN for parquet's missing values
    if empty and skip_empty:
        return ""
    if not isinstance(value, str) or empty:
        remedy = (
            "Fill or remove the row, or set skip_empty"
            if empty
            else f"That is {type(value).__name__}: store it as text, or choose another field"
        )
        raise ValueError(f"{where}: field {field!r} must be non-empty text; got {_short(value)}. {remedy}.")
    odd = ODD.search(text)
    if odd:
        what = "a NUL character" if odd[0] == "\0" else f"half a character (the surrogate U+{ord(odd[0]):04X})"
        raise ValueError(
            f"{where}: field {field!r} holds {what} at position {odd.start()}, which is not text; remove it, or write "
            "the file again as UTF-8."
        )
    return text


def _short(value: Any) -> str:
    text = ascii(value) if isinstance(value, str) and ODD.search(value) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
