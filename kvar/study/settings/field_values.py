"""Convert the values of a config's fields to the fields' types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from enum import Enum
from functools import cache
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from kvar.study.settings.run_settings import SECTIONS
from kvar.study.settings.yaml_keys import parse_yaml

__all__ = ["fitted", "from_words", "override"]

YES, NO = ("true", "yes", "on", "y", "t", "1"), ("false", "no", "off", "n", "f", "0")


@cache
def _kinds() -> dict[str, frozenset[Any]]:
    """Every field's types; a Literal counts as text."""
    from kvar.distill import DistillationConfig

    kinds = {}
    for settings in (*SECTIONS, DistillationConfig):
        hints = get_type_hints(settings)
        for name in (f.name for f in fields(settings) if f.init):
            hint = hints[name]
            members = (hint,) if get_origin(hint) in (Literal, dict, list) else get_args(hint) or (hint,)
            kinds[name] = frozenset(str if get_origin(m) is Literal else get_origin(m) or m for m in members)
    return kinds


def fitted(values: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """The same fields, each value of its field's type.

    YAML reads 1e3 as a float and "no" as text: whole floats become integers, words such as yes and no become booleans,
    and false becomes "no" in a field with that choice. Numbers are never converted to text, because their spelling is
    lost (007, 1e-5).

    Args:
        values: field -> value, all fields known.
        origin: their source, for error messages.

    Raises:
        ValueError: a value that does not fit.
    """
    return {name: _fitted(name, value, origin) for name, value in values.items()}


def from_words(words: Sequence[str]) -> dict[str, Any]:
    """Fields and values of command-line words such as ``["--learning_rate", "1e-4", "--objective=kl", "--bf16"]``.

    A value is read as YAML, but verbatim where the field is text; a boolean field needs no value, a list takes several.

    Raises:
        ValueError: a word without a field, a field without a value, or a value that is not YAML.
    """
    values: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise ValueError(f"{word!r} has no field; overrides are written --field value.")
        name, equals, text = word[2:].partition("=")
        given = [text] if equals else []
        kinds = _kinds().get(name, frozenset())
        while not equals and rest and not rest[0].startswith("--") and (not given or list in kinds):
            given.append(rest.pop(0))
        if not given and bool not in kinds:
            raise ValueError(f"{word} has no value; overrides are written --field value.")
        read = [override(name, text) for text in given] or [True]
        values[name] = read if len(read) > 1 or (list in kinds and str not in kinds) else read[0]
    return values


def override(name: str, word: str) -> Any:
    """The value of ``--name word``: YAML, but where the field is text, the word itself.

    Raises:
        ValueError: not YAML.
    """
    text = _kinds().get(name, frozenset()) - {NoneType} == {str}
    if text and not word.startswith("{"):  # an objective may be a mapping
        return None if word in ("null", "~") else word
    return parse_yaml(word, f"--{name}")


def _fitted(name: str, value: Any, origin: str) -> Any:
    optional, kinds = NoneType in _kinds()[name], _kinds()[name] - {NoneType}
    if value is None and (optional or not kinds <= {bool, int, float}):
        return value
    if dict in kinds and isinstance(value, str) and value.lstrip().startswith("{"):
        return parse_yaml(value, f"{origin}: {name}")
    if kinds == {bool} or (name == "fsdp" and isinstance(value, bool)):  # declared as text for its old values
        return _truth(name, value, origin)
    if name == "student_layers" and isinstance(value, int) and not isinstance(value, bool):
        return value  # one layer's number
    if len(kinds) == 1 and kinds <= {int, float}:
        # integers stay integers in a float field, as in the records of earlier runs
        return _number(name, value, origin, whole=kinds == {int})
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, Enum):
            return _choice(name, value, origin, [str(item.value) for item in kind])
    if kinds == {str} and isinstance(value, bool | int | float):
        text = str(value).lower() if isinstance(value, bool) else str(value)
        raise ValueError(f"{origin}: {name} is text; put it in quotes ({name}: '{text}', or as you mean it).")
    return value


def _truth(name: str, value: Any, origin: str) -> bool:
    word = str(value).lower()
    if isinstance(value, bool | int | str) and word in (*YES, *NO):
        return word in YES
    raise ValueError(f"{origin}: {name} must be true or false; got {value!r}.")


def _choice(name: str, value: Any, origin: str, choices: list[str]) -> str:
    word = "no" if value is False else str(value)
    if word not in choices:
        raise ValueError(f"{origin}: {name} must be one of {', '.join(choices)}; got {value!r}.")
    return word


def _number(name: str, value: Any, origin: str, *, whole: bool) -> Any:
    number = parse_yaml(value, f"{origin}: {name}") if isinstance(value, str) else value
    plain = isinstance(number, int | float) and not isinstance(number, bool)
    if not plain or (whole and not float(number).is_integer()):
        raise ValueError(f"{origin}: {name} must be a {'whole ' if whole else ''}number; got {value!r}.")
    return int(number) if whole else number
