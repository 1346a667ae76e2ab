"""Bounds of settings, written in the types of their fields, such as ``top_k: AtLeast0 = 0``."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

__all__ = ["AtLeast0", "AtLeast1", "BelowOne", "Bound", "Fraction", "NotNegative", "Positive", "check_bounds", "option"]


@dataclass(frozen=True)
class Bound:
    """Annotation of a field's type: which values are allowed, in words and as a predicate."""

    words: str
    allows: Callable[[Any], bool]


AtLeast0 = Annotated[int, Bound("at least 0", lambda value: value >= 0)]
AtLeast1 = Annotated[int, Bound("at least 1", lambda value: value >= 1)]
Positive = Annotated[float, Bound("a positive number", lambda value: 0 < value < math.inf)]
NotNegative = Annotated[float, Bound("0 or a positive number", lambda value: 0 <= value < math.inf)]
Fraction = Annotated[float, Bound("between 0 and 1", lambda value: 0 <= value <= 1)]
BelowOne = Annotated[float, Bound("at least 0 and below 1", lambda value: 0 <= value < 1)]


def option(default: object, text: str) -> Any:
    """A dataclass field with a default and the help text of the command line."""
    return field(default=default, metadata={"help": text})


def check_bounds(settings: Any) -> None:
    """Check every field that the class of ``settings`` declares against the bounds and choices of its type.

    Args:
        settings: a dataclass instance; None is allowed where the type allows it.

    Raises:
        ValueError: the message names field, value and what is allowed.
    """
    for name, hint in _hints(type(settings)):  # type: ignore[arg-type]  # classes have a hash
        value = getattr(settings, name)
        parts = [part for kind in (hint, *get_args(hint)) for part in (kind, *get_args(kind))]
        choices = [choice for part in parts if get_origin(part) is Literal for choice in get_args(part)]
        if value is None and type(None) in parts:
            continue
        if choices and value not in choices:
            listed = ", ".join([*choices, *(["none"] if type(None) in parts else [])])
            raise ValueError(f"{name} {value!r} is unknown; choose one of: {listed}.")
        for bound in parts:
            if isinstance(bound, Bound) and not bound.allows(value):
                raise ValueError(f"{name} must be {bound.words}; got {value}.")


@cache
def _hints(kind: type) -> list[tuple[str, Any]]:
    hints = get_type_hints(kind, include_extras=True)
    return [(name, hints[name]) for name in inspect.get_annotations(kind)]
