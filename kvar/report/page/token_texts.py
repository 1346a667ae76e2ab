"""The texts of a run's recorded token ids, by the tokenizer in the folder of the run, its student or its teacher."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from kvar.records import Run

__all__ = ["Speller", "speller_of", "token_texts"]

Speller = Callable[[Sequence[int]], list[str]]
"""Token ids of one response -> their texts, which together are the response."""


def speller_of(run: Run) -> Speller | None:
    """The speller of a run's tokens, or None where neither its folder nor its student's or teacher's has a tokenizer.

    Nothing is downloaded, and no model code is run.
    """
    for folder in _folders(run):
        if (folder / "tokenizer.json").is_file() or (folder / "tokenizer_config.json").is_file():
            tokenizer = _load(str(folder.resolve()))
            if tokenizer is not None:
                return lambda ids, tokenizer=tokenizer: token_texts(tokenizer, ids)  # type: ignore[misc]
    return None


def _folders(run: Run) -> list[Path]:
    def step(path: Path) -> int:
        match = re.fullmatch(r"checkpoint-(\d+)", path.name)
        return int(match.group(1)) if match else -1

    named = [run.config.get(name) for name in ("tokenizer", "student", "teacher")]
    checkpoints = sorted(run.path.glob("checkpoint-*"), key=step, reverse=True)
    return [run.path / "model", *checkpoints, *(Path(name) for name in named if isinstance(name, str) and name)]


@lru_cache(maxsize=8)
def _load(folder: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError):
        return None


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Each of T tokens' part of the decoded text; a character of several tokens belongs to the last of them."""
    texts, decoded = [], ""
    for end in range(1, len(ids) + 1):
        whole = tokenizer.decode(list(ids[:end]), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if end < len(ids) and whole.endswith("\ufffd"):  # inside a character
            texts.append("")
            continue
        common = len(decoded) if whole.startswith(decoded) else _shared(decoded, whole)
        texts.append(whole[common:])
        decoded = whole
    return texts


def _shared(a: str, b: str) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
