"""Read the settings of a run from a YAML file and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvar.study.settings.probed import with_estimators
from kvar.study.settings.run_settings import SECTIONS, RunSettings
from kvar.study.settings.yaml_keys import parse_yaml

if TYPE_CHECKING:
    from kvar.distill import DistillationConfig

__all__ = ["config_names", "find_config", "is_study", "load_yaml", "read_settings", "settings_from"]


def config_names() -> list[str]:
    """Names of the configs that ship with kvar, usable in place of a config file."""
    folder = resources.files("kvar.assets") / "configs"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def find_config(name: str) -> Path:
    """The YAML file called ``name``: a path, or the name of a config inside the package.

    Raises:
        ValueError: neither exists.
    """
    if Path(name).is_file():
        return Path(name)
    inside = Path(str(resources.files("kvar.assets") / "configs" / f"{name}.yaml"))
    if inside.is_file():
        return inside
    raise ValueError(f"config {name!r} is neither a file nor one of: {', '.join(config_names())}.")


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ValueError: unreadable, not UTF-8, not YAML, a key twice, or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}, line {line}, is not UTF-8 text; save the file in that encoding.") from error
    values = parse_yaml(text, str(path))
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold fields and values (a YAML mapping); got {type(values).__name__}.")
    return values


def is_study(values: Mapping[str, Any]) -> bool:
    """Whether a file's mapping is a grid of runs."""
    return "stages" in values or "methods" in values


def settings_from(
    values: Mapping[str, Any], origin: str, overrides: Mapping[str, Any] | None = None
) -> tuple[RunSettings, DistillationConfig]:
    """Settings from a mapping of fields.

    Args:
        values: field -> value, of the four sections of :class:`RunSettings` and ``DistillationConfig`` together.
        origin: their source, for error messages.
        overrides: fields that replace those of ``values``.

    Raises:
        ValueError: an unknown field, or a value of the wrong type or out of range.
    """
    from kvar.distill import DistillationConfig
    from kvar.study.settings.field_values import fitted

    values = {**values, **(overrides or {})}
    kinds = {kind: [f.name for f in fields(kind) if f.init] for kind in (*SECTIONS, DistillationConfig)}
    known = [name for names in kinds.values() for name in names]
    for name in values:
        if name not in known:
            near = get_close_matches(str(name), known, n=1)
            raise ValueError(f"{origin}: unknown field {name!r}" + (f"; did you mean {near[0]!r}?" if near else "."))
    values = fitted(values, origin)
    parts: list[Any] = [
        kind(**{name: values[name] for name in names if name in values}) for kind, names in kinds.items()
    ]
    task, models, evaluation, probe, training = parts
    return RunSettings(task, models, evaluation, with_estimators(probe, training)), training


def read_settings(config: str, overrides: Mapping[str, Any] | None = None) -> tuple[RunSettings, DistillationConfig]:
    """Settings from a YAML file (a path, or the name of a config that ships with kvar), with overrides.

    Raises:
        ValueError: see :func:`find_config`, :func:`load_yaml` and :func:`settings_from`.
    """
    path = find_config(config)
    return settings_from(load_yaml(path), str(path), overrides)
