"""Suggestions for mistyped words."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["nearest"]


def nearest(word: str, known: Iterable[str]) -> str:
    """For the end of a message: `` (did you mean 'kl'?)``, or nothing.

    Example:
        >>> nearest("centerd", ["centred", "exact"])
        " (did you mean 'centred'?)"
    """
    matches = get_close_matches(word.lower(), list(known), n=1, cutoff=0.5)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
