"""``kvar.load``: open the folder of a run or a measurement."""

from __future__ import annotations

from pathlib import Path

from kvar.measurement import Measurement, is_measurement, load_measurement
from kvar.records import Run
from kvar.records import load as load_run

__all__ = ["load"]


def load(path: str | Path) -> Run | Measurement:
    """Open the folder of a run or a measurement.

    Args:
        path: the folder of a run, finished, running or killed; or a folder written by ``Measurement.save``.

    Returns:
        The run's records (:func:`kvar.records.load`), or the measurement, whose tables are under the same names:
        ``config``, ``trajectories``, ``gradients``, ``metrics``.

    Raises:
        kvar.records.RecordsError: neither exists, or a file is damaged, foreign, or of a newer schema.
    """
    return load_measurement(path) if is_measurement(path) else load_run(path)
