"""Sums that several statistics of one measurement share are formed once."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

__all__ = ["remembered"]

T = TypeVar("T")

_KEPT: dict[int, tuple[weakref.ref[Any], dict[Hashable, Any]]] = {}


def remembered(owner: object, key: Hashable, make: Callable[[], T]) -> T:
    """What ``make`` gave for this very object and key before, else its result now, kept as long as the object lives.

    Args:
        owner: whose it is, told by identity; what it holds must not change.
        key: which of its results.
        make: forms it.

    Example:
        >>> class Measurement: ...
        >>> one, calls = Measurement(), []
        >>> [remembered(one, "sums", lambda: calls.append(1) or len(calls)) for _ in range(3)]
        [1, 1, 1]
    """
    place = id(owner)
    entry = _KEPT.get(place)
    if entry is None or entry[0]() is not owner:
        entry = (weakref.ref(owner, lambda _: _KEPT.pop(place, None)), {})
        _KEPT[place] = entry
    found = entry[1]
    if key not in found:
        found[key] = make()
    return found[key]
