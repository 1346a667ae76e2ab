"""``--field value`` words of a command line."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["pairs"]


def pairs(words: Sequence[str]) -> list[tuple[str, str]]:
    """``--field value`` and ``--field=value`` words as pairs of field and value.

    Raises:
        ValueError: a word that is neither a field nor its value, or a field without a value.
    """
    fields = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise ValueError(f"{word!r} stands alone; overrides are written --field value.")
        name, equals, value = word[2:].partition("=")
        if not equals:
            if not rest:
                raise ValueError(f"{word} has no value; overrides are written --field value.")
            value = rest.pop(0)
        fields.append((name, value))
    return fields
