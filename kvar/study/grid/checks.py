"""Checks of a study's file: unknown keys, empty axes, repeated cells, contradictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from kvar.study.settings.run_settings import STARTS

__all__ = ["check_grid", "stages_of"]

KEYS = ("common", "tasks", "students", "stages", "methods", "seeds")


def stages_of(study: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The stages of a study's file, then its methods, which are stages written as a mapping.

    One with ``sweep: {field: [values]}`` stands for one stage for every value, or combination of values where several
    fields are swept, called ``name@value``.

    Raises:
        ValueError: not a list of mappings, a method with a field ``name``, or a sweep that is no mapping of lists or
            sweeps a field that the stage sets.
    """
    stages = study.get("stages") or []
    if not isinstance(stages, list) or not all(isinstance(stage, Mapping) for stage in stages):
        raise ValueError(f"stages must be a list of mappings, each with a name; got {stages!r}.")
    methods = study.get("methods") or {}
    for name, fields in methods.items():
        if not isinstance(fields, Mapping):
            raise ValueError(f"method {name!r} must be a mapping of fields; got {fields!r}.")
        if "name" in fields:
            raise ValueError(f"method {name!r} has a field name, {fields['name']!r}; leave name out.")
    written = [*stages, *({"name": name, **fields} for name, fields in methods.items())]
    return [each for stage in written for each in _swept(stage)]


def _swept(stage: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The stages that one stands for."""
    sweep = stage.get("sweep")
    fields = {name: value for name, value in stage.items() if name != "sweep"}
    if sweep is None:
        yield fields
        return
    where = f"stage {stage.get('name')!r}: sweep"
    if not isinstance(sweep, Mapping) or not sweep or not all(isinstance(v, list) and v for v in sweep.values()):
        example = "{learning_rate: [1.0e-4, 1.0e-3]}"
        raise ValueError(f"{where} must map fields to lists, such as {example}; got {sweep!r}.")
    for name in sweep:
        if name in fields:
            raise ValueError(f"{where} has {name}, which the stage sets to {fields[name]!r}; keep one of them.")
    for values in product(*sweep.values()):
        label = ",".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
        yield {**fields, **dict(zip(sweep, values, strict=True)), "name": f"{stage.get('name')}@{label}"}


def check_grid(study: Mapping[str, Any]) -> None:
    """Check keys, names, seeds and starts of a study's mapping, but not the fields of its runs.

    Raises:
        ValueError: the first fault.
    """
    unknown = sorted(str(key) for key in study if key not in KEYS)
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}; a study has {', '.join(KEYS)}.")
    for key in ("common", "tasks", "students", "methods"):
        if not isinstance(study.get(key) or {}, Mapping):
            raise ValueError(f"{key} must be a mapping (name: ...); got {study[key]!r}.")
    for keys in (("stages", "methods"), ("students",)):
        if not any(study.get(key) for key in keys):
            raise ValueError(f"{keys[0]} is missing or empty; a study needs at least one of {' or '.join(keys)}.")
    for key in ("tasks", "methods", "seeds"):
        if key in study and not study[key]:
            raise ValueError(f"{key} is empty, so the grid has no cells; name one, or leave {key} out.")
    for key in ("tasks", "students"):
        _check_names(key, [str(name) for name in study.get(key) or {}])
    for name, origin in study["students"].items():
        if not isinstance(origin, str | Mapping):
            raise ValueError(
                f"student {name!r} must be a folder, a hub name or a mapping with model_type and sizes; got {origin!r}."
            )
        if isinstance(origin, Mapping) and STARTS.keys() & origin:
            _check_fields(f"student {name!r}", {k: v for k, v in origin.items() if k not in STARTS}, study)
    if "seeds" in study:
        _check_seeds("seeds", study["seeds"])
    _check_stages(study)
    _check_fields("common", study.get("common") or {}, study)
    for name, fields in (study.get("tasks") or {}).items():
        if not isinstance(fields or {}, Mapping):
            raise ValueError(f"task {name!r} must be a mapping of fields; got {fields!r}.")
        _check_fields(f"task {name!r}", fields or {}, study)


def _check_names(key: str, names: Sequence[str]) -> None:
    for name in names:
        if not name or name.startswith(".") or "/" in name or "\\" in name:
            raise ValueError(f"{key}: {name!r} cannot name a folder; leave out slashes and leading dots.")
        if names.count(name) > 1:
            raise ValueError(f"{key}: {name!r} occurs twice; keep one of them.")


def _check_seeds(where: str, seeds: Any) -> None:
    if not isinstance(seeds, Sequence) or isinstance(seeds, str) or not seeds:
        raise ValueError(f"{where} must be a list of numbers such as [0, 1, 2]; got {seeds!r}.")
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ValueError(f"{where}: {seed!r} is not a seed; a seed is a whole number from 0.")
        if seeds.count(seed) > 1:
            raise ValueError(f"{where}: {seed} occurs twice; keep one of them.")


def _check_stages(study: Mapping[str, Any]) -> None:
    seen: dict[str, Any] = {}
    for stage in stages_of(study):
        name, start = str(stage.get("name") or ""), stage.get("from")
        if not name or name in seen:
            raise ValueError(f"every stage needs its own name; got {stage.get('name')!r} after {list(seen)}.")
        _check_names("stages", [name])
        if start is not None and str(start) not in seen:
            raise ValueError(
                f"stage {name!r} starts from {start!r}, which is not an earlier stage; name one of {list(seen)}."
            )
        if "seeds" in stage:
            _check_seeds(f"stage {name!r}: seeds", stage["seeds"])
        seeds, of_start = list(stage.get("seeds") or study.get("seeds") or [None]), seen.get(str(start), [None])
        if len(of_start) > 1 and not set(seeds) <= set(of_start):
            raise ValueError(
                f"stage {name!r} has seeds {seeds}, but {start!r}, from which it starts, has {of_start}; give "
                f"{start!r} the same seeds, or one for all."
            )
        seen[name] = seeds
        _check_fields(f"stage {name!r}", {k: v for k, v in stage.items() if k != "from"}, study)


def _check_fields(where: str, fields: Mapping[str, Any], study: Mapping[str, Any]) -> None:
    """Refuse fields that the grid sets."""
    for name in STARTS:
        if name in fields:
            raise ValueError(f"{where} sets {name}, which students (or from) sets; keep one of them.")
    if "output_dir" in fields:
        raise ValueError(f"{where} sets output_dir; every cell's folder follows from --output. Leave it out.")
    if "seed" in fields and ("seeds" in study or "seeds" in fields):
        raise ValueError(f"{where} sets seed to {fields['seed']!r}, but the study has seeds; keep one of them.")
