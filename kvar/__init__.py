"""kvar: K-step returns, their variance and their bias in RL-based knowledge distillation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvar._version import __version__

if TYPE_CHECKING:
    from kvar.records import load

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> object:
    """Import :func:`kvar.records.load` (and with it pandas) only when ``kvar.load`` is used."""
    if name == "load":
        from kvar.records import load

        return load
    raise AttributeError(f"module 'kvar' has no attribute {name!r}.")
