"""Reading a saved measurement back."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from kvar.measurement.folder import read_measurement
from kvar.measurement.measurement import Measurement

__all__ = ["load_measurement"]


def load_measurement(folder: str | Path) -> Measurement:
    """What :meth:`kvar.measurement.Measurement.save` wrote, tensor by tensor the same, on the CPU.

    Raises:
        kvar.records.RecordsError: no measurement is there, or its file is damaged.
    """
    data = read_measurement(folder)
    return Measurement(**{f.name: getattr(data, f.name) for f in fields(data)})
