"""kvar: K-step returns, their variance and their bias in RL-based knowledge distillation."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from kvar._version import __version__

if TYPE_CHECKING:
    from kvar.front.load import load
    from kvar.front.measure import measure
    from kvar.front.watch import watch

__all__ = ["__version__", "load", "measure", "watch"]


def __getattr__(name: str) -> object:
    """Import ``kvar.load``, ``measure`` and ``watch`` (and with them pandas, transformers) only when they are used."""
    if name in ("load", "measure", "watch"):
        return getattr(import_module(f"kvar.front.{name}"), name)
    raise AttributeError(f"module 'kvar' has no attribute {name!r}.")


def __dir__() -> list[str]:
    return [*globals(), "load", "measure", "watch"]
