"""The models that ship inside the package, by name."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

__all__ = ["SHIPPED", "resolve"]

SHIPPED = {
    "arithmetic": "teachers",
    **dict.fromkeys(("arithmetic-50k", "arithmetic-90k", "arithmetic-90k-early", "arithmetic-200k"), "students"),
}
"""Name -> its folder in ``kvar/assets``: a teacher of 0.8 M parameters, and students distilled from it."""


def resolve(name: str | None) -> str | None:
    """The folder of a shipped model by its name; any other name is returned unchanged."""
    if name in SHIPPED:
        return str(Path(str(resources.files("kvar.assets") / SHIPPED[str(name)] / str(name))))
    return name
