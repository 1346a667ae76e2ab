"""The settings of runs: what differs between them first, all of them folded below."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvar.report.page.parts import flatten, mapping_html
from kvar.report.page.sections import MOST_ROWS, table_html

__all__ = ["differing_fields", "settings_html"]


def differing_fields(configs: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], dict[str, Any]]:
    """The fields in which settings differ, and the others with their common value; a field left out is None.

    >>> differing_fields({"a": {"seed": 0, "model": {"d": 8}}, "b": {"seed": 1, "model": {"d": 8}}})
    (['seed'], {'model.d': 8})
    """
    flat = [flatten(config) for config in configs.values()]
    fields = list(dict.fromkeys(name for config in flat for name in config))
    differ = [name for name in fields if any(config.get(name) != flat[0].get(name) for config in flat[1:])]
    return differ, {name: flat[0].get(name) for name in fields if name not in differ}


def settings_html(configs: Mapping[str, Mapping[str, Any]]) -> str:
    """A section of the settings of runs.

    Args:
        configs: name of a run -> its settings, nested or flat.
    """
    import pandas as pd

    differ, common = differing_fields(configs)
    parts = []
    if differ:
        some = list(configs.items())[:MOST_ROWS]
        rows = [[name, *(_shown(flatten(config).get(field)) for field in differ)] for name, config in some]
        first = f"; the first {len(some)} of them" if len(some) < len(configs) else ""
        parts.append(f"<p>Fields that differ between the {len(configs)} runs{first}.</p>")
        parts.append(table_html(pd.DataFrame(rows, columns=["run", *differ], dtype=object)))
    what = "All fields" if len(configs) == 1 else f"Fields that all {len(configs)} runs share"
    parts.append(f"<details><summary>{what}</summary>\n{mapping_html(common)}\n</details>")
    body = "\n".join(parts)
    return f"<section>\n<h2>Configuration</h2>\n{body}\n</section>"


def _shown(value: Any) -> Any:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
