"""A measurement as rows of a run's tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvar.gradients.frames import gradient_frame, prompt_frame, trajectory_frame

if TYPE_CHECKING:
    import pandas as pd

    from kvar.measurement.data import MeasurementData
    from kvar.records import RunWriter

__all__ = ["record", "record_frames", "response_numbers"]


def response_numbers(measurement: MeasurementData) -> dict[str, float]:
    """Means over responses, ``total_gap``, ``response_length`` and ``finished``; then ``config["numbers"]``, if any."""
    rollouts = measurement.rollouts
    return {
        "total_gap": float(measurement.values.gap.sum(dim=1).mean()),
        "response_length": float(rollouts.lengths.float().mean()),
        "finished": float(rollouts.finished.float().mean()),
        **measurement.config.get("numbers", {}),
    }


def record(measurement: MeasurementData, writer: RunWriter, name: str = "probe") -> None:
    """Append a measurement to a run's tables as probe ``name``; it replaces one of the same name and step."""
    for table, frame in record_frames(measurement, name).items():
        if len(frame):
            writer.append(table, frame, key=(name, measurement.step))


def record_frames(measurement: MeasurementData, name: str = "probe") -> dict[str, pd.DataFrame]:
    """Table of ``kvar.records`` -> its rows; ``prompt_gradients`` is empty where only norms are measured."""
    import pandas as pd

    at: dict[str, Any] = {"probe": name, "step": measurement.step}
    rollouts, values, moments = measurement.rollouts, measurement.values, measurement.moments
    numbers = {"probe_seconds": measurement.seconds, **response_numbers(measurement)}
    rows = [{"step": measurement.step, "split": name, "name": k, "value": v} for k, v in numbers.items()]
    return {
        "trajectories": trajectory_frame(rollouts, values, **at),
        "gradients": gradient_frame(moments, **at),
        "prompt_gradients": prompt_frame(moments, **at),
        "metrics": pd.DataFrame(rows),
    }
