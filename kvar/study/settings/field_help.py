"""``kvar train --help``: every field with its type, default and meaning."""

from __future__ import annotations

import dataclasses
import shutil
import textwrap
import types
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

__all__ = ["field_help", "study_help", "type_text"]


def type_text(kind: Any) -> str:
    """A field's type as help pages show it.

    Example:
        >>> type_text(bool), type_text(float | None), type_text(Literal["max", "soft"]), type_text(dict | str | None)
        ('true|false', 'FLOAT', 'max|soft', 'MAPPING')
    """
    origin = get_origin(kind)
    if origin is Literal:
        return "|".join(str(value) for value in get_args(kind))
    if origin in (Union, types.UnionType):
        parts = [part for part in get_args(kind) if part is not type(None)]
        plain = [part for part in parts if part is not str] or parts  # mappings and enums may also be text
        return "|".join(dict.fromkeys(type_text(part) for part in plain))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(item.value) for item in kind)
    if kind is bool:
        return "true|false"
    if origin is dict or kind is dict:
        return "MAPPING"
    if origin is list or kind is list:
        return " ".join(type_text(part) for part in get_args(kind)[:1]) + " ..."
    return {Any: "MAPPING", int: "INT", float: "FLOAT", str: "TEXT"}.get(kind, "VALUE")


def field_help(values: Mapping[str, Any], origin: str | None = None) -> str:
    """The help page of a run; ``values`` of the config ``origin`` are shown as defaults."""
    from transformers import TrainingArguments

    from kvar.distill import DistillationConfig
    from kvar.study.settings.run_settings import SECTIONS

    kvars = set(DistillationConfig.__annotations__)
    theirs = {field.name for field in dataclasses.fields(TrainingArguments)} - kvars
    sections: list[tuple[str, type, set[str]]] = [
        (kind.__name__.removesuffix("Settings"), kind, set(kind.__annotations__)) for kind in SECTIONS
    ]
    sections += [
        ("Distillation", DistillationConfig, kvars),
        ("Training (transformers.TrainingArguments)", DistillationConfig, theirs),
    ]
    shown = f", those of {origin}" if origin else ""
    lines = [
        "usage: kvar train CONFIG [--overwrite] [--FIELD VALUE ...]",
        "",
        "CONFIG is a YAML file of the fields below, or the name of a config that ships with kvar.",
        f"In brackets the defaults{shown}; kvar train CONFIG --help shows a config's own.",
        "--overwrite discards a run in the output folder.",
    ]
    for title, kind, names in sections:
        hints = get_type_hints(kind)
        lines += ["", f"{title}:"]
        for member in dataclasses.fields(kind):
            if member.name in names:
                lines += _entry(member, hints[member.name], values)
    return "\n".join(lines)


def study_help(parser_help: str, study: Mapping[str, Any] | None, origin: str | None) -> str:
    """The help page of a study: its command line, and the contents of a named study.

    Args:
        parser_help: options of the command.
        study: from ``read_study``, or None.
        origin: the study's name.
    """
    lines = [
        parser_help.rstrip(),
        "",
        "--FIELD VALUE sets a field in every cell; kvar train --help lists the fields.",
    ]
    if study is not None:
        lines += ["", f"{origin}:", f"  students: {', '.join(map(str, study['students']))}"]
        for axis in ("tasks", "seeds"):
            if axis in study:
                lines.append(f"  {axis}: {', '.join(map(str, study[axis]))}")
        lines += _settings("common", study.get("common") or {})
        for stage in study["stages"]:
            lines += _settings(f"stage {stage['name']}", {k: v for k, v in stage.items() if k != "name"})
    return "\n".join(lines)


def _settings(title: str, fields: Mapping[str, Any]) -> list[str]:
    return [f"  {title}:", *(f"    {name}: {_value(value)}" for name, value in fields.items())]


def _entry(member: dataclasses.Field[Any], kind: Any, values: Mapping[str, Any]) -> list[str]:
    if member.name in values:
        default = values[member.name]
    elif member.default is not dataclasses.MISSING:
        default = member.default
    else:
        default = member.default_factory() if member.default_factory is not dataclasses.MISSING else None
    text = " ".join(str(member.metadata.get("help") or "").split())
    width = min(shutil.get_terminal_size().columns, 120) - 8
    head = f"  --{member.name} {type_text(kind)}  [{_value(default)}]"
    return [head, *("      " + line for line in textwrap.wrap(text, max(width, 40)))]


def _value(value: object) -> str:
    if value is None or value in ("", [], {}):
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(str, value))
    return str(value)
