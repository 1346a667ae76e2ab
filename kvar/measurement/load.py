"""Load a saved measurement."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from kvar.measurement.folder import read_measurement
from kvar.measurement.measurement import Measurement

__all__ = ["load_measurement"]


def load_measurement(folder: str | Path) -> Measurement:
    """As :func:`kvar.measurement.folder.read_measurement`, with the methods of :class:`Measurement`."""
    data = read_measurement(folder)
    return Measurement(**{f.name: getattr(data, f.name) for f in fields(data)})
