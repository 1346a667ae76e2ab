"""The settings of runs: the fields that differ between runs, and the common ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvar.report.page.sections import MOST_ROWS, grid

__all__ = ["differing_fields", "flatten", "settings_of"]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted names.

    >>> flatten({"model": {"layers": 2, "names": ["a", "b"]}, "seed": 0})
    {'model.layers': 2, 'model.names': ['a', 'b'], 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) and value else {prefix + name: value}
    return flat


def differing_fields(configs: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], dict[str, Any]]:
    """The fields in which settings differ, and the others with their common value; a field left out is None.

    >>> differing_fields({"a": {"seed": 0, "model": {"d": 8}}, "b": {"seed": 1, "model": {"d": 8}}})
    (['seed'], {'model.d': 8})
    """
    flat = [flatten(config) for config in configs.values()]
    fields = list(dict.fromkeys(name for config in flat for name in config))
    differ = [name for name in fields if any(config.get(name) != flat[0].get(name) for config in flat[1:])]
    return differ, {name: flat[0].get(name) for name in fields if name not in differ}


def settings_of(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The data of the page's section on configuration.

    Args:
        configs: name of a run -> its settings, nested or flat.

    Returns:
        runs, their number; differ, a table of the differing fields with a row per run, or None; common, the others.
    """
    import pandas as pd

    differ, common = differing_fields(configs)
    rows = [
        [name, *(_shown(flatten(config).get(field)) for field in differ)]
        for name, config in list(configs.items())[:MOST_ROWS]
    ]
    table = grid(pd.DataFrame(rows, columns=["run", *differ], dtype=object)) if differ else None
    return {"runs": len(configs), "differ": table, "common": common}


def _shown(value: Any) -> Any:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
