"""An interval that a table may show in bold."""

from __future__ import annotations

from dataclasses import dataclass

from kvar.intervals import Interval

__all__ = ["Marked"]


@dataclass(frozen=True)
class Marked(Interval):
    """An interval of a table; ``best`` says whether it is shown in bold."""

    best: bool = False
