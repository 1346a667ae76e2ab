"""Whether a study file spans a grid: no key unknown, no axis empty, no cell twice, nothing said two ways."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kvar.study.settings.run_settings import STARTS

__all__ = ["check_grid"]

KEYS = ("common", "tasks", "students", "stages", "methods", "seeds")


def check_grid(study: Mapping[str, Any]) -> None:
    """Check what is known before any field is.

    Args:
        study: the file's mapping.

    Raises:
        ValueError: the message names key, value and remedy.
    """
    unknown = sorted(str(key) for key in study if key not in KEYS)
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}; a study has {', '.join(KEYS)}.")
    for key in ("common", "tasks", "students", "methods"):
        if not isinstance(study.get(key) or {}, Mapping):
            raise ValueError(f"{key} must be a mapping (name: ...); got {study[key]!r}.")
    if not study.get("stages") and not study.get("methods"):
        raise ValueError("stages is missing or empty; a study needs at least one of stages or methods.")
    if not study.get("students"):
        raise ValueError("students is missing or empty; a study needs at least one of them.")
    for key in ("tasks", "methods", "seeds"):
        if key in study and not study[key]:
            raise ValueError(f"{key} is empty, so the grid has no cells; name one, or leave {key} out.")
    for key in ("tasks", "students", "methods"):
        _check_names(key, study.get(key) or {})
    _check_students(study["students"])
    if "seeds" in study:
        _check_seeds("seeds", study["seeds"])
    _check_stages(study)
    _check_fields("common", study.get("common") or {}, study)
    for name, fields in (study.get("tasks") or {}).items():
        if not isinstance(fields or {}, Mapping):
            raise ValueError(f"task {name!r} must be a mapping of fields; got {fields!r}.")
        _check_fields(f"task {name!r}", fields or {}, study)


def _check_names(key: str, names: Iterable[Any]) -> None:
    seen: set[str] = set()
    for name in map(str, names):
        if not name or name.startswith(".") or "/" in name or "\\" in name:
            raise ValueError(f"{key}: {name!r} cannot name a folder; leave out slashes, and dots in front.")
        if name in seen:
            raise ValueError(f"{key}: {name!r} is there twice; keep one of them.")
        seen.add(name)


def _check_students(students: Mapping[Any, Any]) -> None:
    for name, origin in students.items():
        if not isinstance(origin, str | Mapping):
            raise ValueError(
                f"student {name!r} must be a folder, a hub name or a mapping with model_type and sizes; got {origin!r}."
            )


def _check_seeds(where: str, seeds: Any) -> None:
    if not isinstance(seeds, Sequence) or isinstance(seeds, str) or not seeds:
        raise ValueError(f"{where} must be a list of numbers such as [0, 1, 2]; got {seeds!r}.")
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ValueError(f"{where}: {seed!r} is no seed; a seed is a number from 0.")
        if seeds.count(seed) > 1:
            raise ValueError(f"{where}: {seed} is there twice, which is one cell twice; keep one of them.")


def _check_stages(study: Mapping[str, Any]) -> None:
    stages = study.get("stages") or []
    if not isinstance(stages, list) or not all(isinstance(stage, Mapping) for stage in stages):
        raise ValueError(f"stages must be a list of mappings, each with a name; got {stages!r}.")
    for name, fields in (study.get("methods") or {}).items():
        if not isinstance(fields, Mapping):
            raise ValueError(f"method {name!r} must be a mapping of fields; got {fields!r}.")
        if "name" in fields:
            raise ValueError(f"method {name!r} is called {fields['name']!r} inside; leave name out.")
    members = [*stages, *({"name": n, **fields} for n, fields in (study.get("methods") or {}).items())]
    seen: dict[str, Any] = {}
    for stage in members:
        name, start = stage.get("name"), stage.get("from")
        if name is None or not str(name) or str(name) in seen:
            raise ValueError(f"every stage needs a name of its own; got {name!r} after {list(seen)}.")
        _check_names("stages", [name])
        if start is not None and str(start) not in seen:
            raise ValueError(f"stage {name!r} starts from {start!r}, which is no earlier stage ({list(seen)}).")
        if "seeds" in stage:
            _check_seeds(f"stage {name!r}: seeds", stage["seeds"])
        seeds = stage.get("seeds") or study.get("seeds") or [None]
        if start is not None and len(seen[str(start)]) > 1 and not set(seeds) <= set(seen[str(start)]):
            raise ValueError(
                f"stage {name!r} has seeds {seeds}, but {start!r}, from which it starts, has {seen[str(start)]}; give "
                f"{start!r} the same seeds, or one for all."
            )
        seen[str(name)] = list(seeds)
        fields = {key: value for key, value in stage.items() if key not in ("name", "from", "seeds")}
        _check_fields(f"stage {name!r}", fields, study, seeds="seeds" in stage)


def _check_fields(where: str, fields: Mapping[str, Any], study: Mapping[str, Any], *, seeds: bool = False) -> None:
    """Refuse fields that the grid sets itself."""
    for name in STARTS:
        if name in fields:
            raise ValueError(f"{where} sets {name}, which students (or from) sets; keep one of them.")
    if "output_dir" in fields:
        raise ValueError(f"{where} sets output_dir; every cell's folder follows from --output. Leave it out.")
    if "seed" in fields and ("seeds" in study or seeds):
        raise ValueError(f"{where} sets seed to {fields['seed']!r}, but the study has seeds; keep one of them.")
