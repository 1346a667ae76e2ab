"""Values of a config's fields, held against the fields' types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from enum import Enum
from functools import cache
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from kvar.study.settings.yaml_keys import parse_yaml

__all__ = ["fitted", "mapping_fields", "override", "taken_from"]

YES, NO = ("true", "yes", "on", "y", "t", "1"), ("false", "no", "off", "n", "f", "0")


@cache
def _kinds() -> dict[str, frozenset[Any]]:
    """Every field's types; a Literal counts as text."""
    from kvar.distill import DistillationConfig
    from kvar.study.settings.run_settings import RunSettings

    found = {}
    for settings in (RunSettings, DistillationConfig):
        hints = get_type_hints(settings)
        for name in (f.name for f in fields(settings) if f.init):
            hint = hints[name]
            members = (hint,) if get_origin(hint) in (Literal, dict, list) else get_args(hint) or (hint,)
            found[name] = frozenset(str if get_origin(m) is Literal else get_origin(m) or m for m in members)
    return found


@cache
def mapping_fields() -> tuple[str, ...]:
    """Fields that take a mapping, which a command line gives as YAML in one word."""
    return ("student_config", *(name for name, kinds in _kinds().items() if dict in kinds))


def fitted(values: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """The same fields, each value of its field's type.

    YAML gives 1e3 as a float and "no" as a word: a whole number is fitted to a field of whole numbers, a word that says
    yes or no to a field of true and false, and false to a field of words that has "no". Text is never made from a
    number, whose spelling is lost (007, 1e-5).

    Args:
        values: field -> value, all fields known.
        origin: where they come from, for error messages.

    Raises:
        ValueError: a value that does not fit; the message names origin, field, value and what is meant.
    """
    return {name: _fitted(name, value, origin) for name, value in values.items()}


def override(name: str, word: str) -> Any:
    """What ``--name word`` sets: YAML, but text where the field is text, as it is written.

    Raises:
        ValueError: not YAML.
    """
    value = parse_yaml(word, f"--{name}")
    return word if isinstance(value, bool | int | float) and _kinds().get(name, set()) - {NoneType} == {str} else value


def taken_from(words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Split a command line's words: ``--field value`` of mappings, numbers and truth values, and what is left.

    What is left is for argparse: text, lists and flags without a value.

    Args:
        words: such as ``["--learning_rate", "1e-4", "--objective", "kl"]``.

    Raises:
        ValueError: a mapping that is not YAML.
    """
    values: dict[str, Any] = {}
    rest, todo = list[str](), list(words)
    while todo:
        word = todo.pop(0)
        dashed, equals, text = word.partition("=")
        name = dashed.removeprefix("--").replace("-", "_")
        kinds = _kinds().get(name, frozenset()) - {NoneType}
        mapping = name in mapping_fields()
        following = text if equals else todo[0] if todo else None
        missing = following is None or (not equals and following.startswith("--"))
        if not word.startswith("--") or missing or not (mapping or kinds <= {bool, int, float}) or not kinds:
            rest.append(word)
            continue
        if not equals:
            todo.pop(0)
        values[name] = parse_yaml(str(following), f"--{name}") if mapping else following
    return values, rest


def _fitted(name: str, value: Any, origin: str) -> Any:
    optional, kinds = NoneType in _kinds()[name], _kinds()[name] - {NoneType}
    if name == "student_config":
        return _sizes(value, origin)
    if value is None and (optional or not kinds <= {bool, int, float}):
        return value
    if dict in kinds and isinstance(value, str) and value.lstrip().startswith("{"):
        return parse_yaml(value, f"{origin}: {name}")
    if kinds == {bool}:
        return _truth(name, value, origin)
    if name == "student_layers" and isinstance(value, int) and not isinstance(value, bool):
        return value  # one layer's number: its spelling carries nothing
    if len(kinds) == 1 and kinds <= {int, float}:
        # whole numbers stay whole in a field of numbers: so earlier runs' records have them
        return _number(name, value, origin, whole=kinds == {int})
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, Enum):
            return _choice(name, value, origin, [str(item.value) for item in kind])
    if kinds == {str} and isinstance(value, bool | int | float):
        said = str(value).lower() if isinstance(value, bool) else str(value)
        raise ValueError(f"{origin}: {name} is text; put it in quotes ({name}: '{said}', or as you mean it).")
    return value


def _sizes(value: Any, origin: str) -> dict[str, Any] | None:
    sizes = parse_yaml(value, f"{origin}: student_config") if isinstance(value, str) else value
    if sizes is not None and not isinstance(sizes, dict):
        raise ValueError(f"{origin}: student_config must be a mapping with model_type and sizes; got {value!r}.")
    return sizes


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
    number: Any = value
    try:
        if isinstance(value, str):
            number = _parsed(value)
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError
        if whole and number != int(number):
            raise ValueError
    except (ValueError, OverflowError):
        raise ValueError(f"{origin}: {name} must be a {'whole ' if whole else ''}number; got {value!r}.") from None
    return int(number) if whole else number


def _parsed(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)
