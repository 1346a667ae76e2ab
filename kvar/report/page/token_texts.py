"""What a run's recorded token ids say, by the tokenizer that lies with the run or its teacher."""

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
    """How to spell a run's tokens, or None where no tokenizer lies in its folder, nor at its student's or teacher's.

    Nothing is fetched, and no code of a model's is run.
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
    """Each token's share of the decoded text; a character of several tokens is its last token's.

    Args:
        tokenizer: a transformers tokenizer.
        ids: (T,) token ids.

    Returns:
        T texts, which joined are the decoded response.
    """
    texts, said = [], ""
    for end in range(1, len(ids) + 1):
        whole = tokenizer.decode(list(ids[:end]), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if end < len(ids) and whole.endswith("\ufffd"):  # in the midst of a character
            texts.append("")
            continue
        common = len(said) if whole.startswith(said) else _shared(said, whole)
        texts.append(whole[common:])
        said = whole
    return texts


def _shared(a: str, b: str) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
