"""The tokenizer of a measurement: as given, or the one saved with the student or the teacher."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from torch import nn

from kvar.distill import load_tokenizer
from kvar.rollouts import check_same_tokenizer
from kvar.rollouts.vocabulary import check_tokenizer

__all__ = ["settled_tokenizer"]


def settled_tokenizer(given: Any, student: Any, teacher: Any) -> Any:
    """The tokenizer of student and teacher, with a pad token.

    Args:
        given: a tokenizer, its name, or None.
        student: a module, or a name.
        teacher: likewise.

    Returns:
        The one given, else the student's, else the teacher's, else None.

    Raises:
        TypeError: ``given`` is not a tokenizer.
        ValueError: the known ones of ``given``, student and teacher differ.
    """
    if isinstance(given, str | Path):
        given = load_tokenizer(given)
    check_tokenizer(given)
    saved = [_beside(model, search_hub=given is None) for model in (student, teacher)]
    if saved[0] is not None and saved[1] is not None:
        check_same_tokenizer(saved[0], saved[1])
    for beside in saved:
        if given is not None and beside is not None:
            _check_given(given, beside)
    tokenizer: Any = next((one for one in (given, *saved) if one is not None), None)
    if getattr(tokenizer, "pad_token_id", 0) is None and tokenizer.eos_token is not None:
        tokenizer = copy.deepcopy(tokenizer)  # the caller's is not changed
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _beside(model: Any, search_hub: bool) -> Any:
    """The tokenizer in the folder or hub repository of a model, or None."""
    name = str(model)
    if isinstance(model, nn.Module):
        config = getattr(getattr(model, "module", model), "config", None)
        name = str(getattr(config, "_name_or_path", "") or "")
        if not name or not (search_hub or Path(name).is_dir()):
            return None
    try:
        return load_tokenizer(name)
    except (ValueError, OSError, ImportError):
        return None


def _check_given(given: Any, beside: Any) -> None:
    """Compare with the tokenizer saved with a model; the given one may have an additional pad token."""
    if not hasattr(given, "get_vocab"):
        return
    ours, theirs = dict(given.get_vocab()), beside.get_vocab()
    if given.pad_token not in theirs:
        ours.pop(given.pad_token, None)
    if ours != theirs:
        check_same_tokenizer(given, beside)
