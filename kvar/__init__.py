"""kvar: K-step returns, their variance and their bias in RL-based knowledge distillation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvar._version import __version__

if TYPE_CHECKING:
    from kvar.front.load import load
    from kvar.front.measure import measure

__all__ = ["__version__", "load", "measure"]


def __getattr__(name: str) -> object:
    """Import ``kvar.load`` and ``kvar.measure`` (and with them pandas, transformers) only when they are used."""
    if name == "load":
        from kvar.front.load import load

        return load
    if name == "measure":
        from kvar.front.measure import measure

        return measure
    raise AttributeError(f"module 'kvar' has no attribute {name!r}.")


def __dir__() -> list[str]:
    return [*globals(), "load", "measure"]
