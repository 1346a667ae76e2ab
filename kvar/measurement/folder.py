"""A measurement on disk: a run's records, for all commands, and its tensors, to load it again."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from kvar.gradients import GradientMoments
from kvar.gradients.moments import GroupMoments
from kvar.measurement.data import MeasurementData
from kvar.returns import TokenValues
from kvar.rollouts import Policy, Rollouts

__all__ = ["FILE", "is_measurement", "read_measurement", "save_measurement"]

FILE = "measurement.safetensors"
"""Rollouts, values and moments, beside the run's ``config.json`` and tables."""


def save_measurement(measurement: MeasurementData, folder: str | Path, overwrite: bool = False) -> Path:
    """See :meth:`kvar.measurement.Measurement.save`; the tensors are written last, all or nothing."""
    from safetensors.torch import save

    from kvar.measurement.records import record
    from kvar.records import RunWriter
    from kvar.records.parts import replace_file

    path = Path(folder)
    policy = measurement.rollouts.policy
    about = {
        "step": measurement.step,
        "seconds": measurement.seconds,
        "names": list(measurement.moments.names),
        "groups": list(measurement.moments.groups),
        "policy": None if policy is None else asdict(policy),
    }
    config = {"parameters": 0, **measurement.config, "step": measurement.step}
    with RunWriter(path, config, overwrite, keep=True) as writer:
        (path / FILE).unlink(missing_ok=True)
        record(measurement, writer)
        replace_file(path / FILE, save(_tensors(measurement), {"kvar": json.dumps(about)}))
    return path


def is_measurement(folder: str | Path) -> bool:
    """Whether a folder holds a saved measurement."""
    return (Path(folder) / FILE).is_file()


def read_measurement(folder: str | Path) -> MeasurementData:
    """Load a folder of :meth:`kvar.measurement.Measurement.save`, with equal tensors on the CPU.

    Raises:
        kvar.records.RecordsError: no measurement, or a damaged file.
    """
    from safetensors import SafetensorError, safe_open

    from kvar.records import RecordsError
    from kvar.records.load import read_config

    path = Path(folder) / FILE
    header = read_config(Path(folder))
    if header is None or not path.is_file():
        raise RecordsError(f"no measurement at {folder}: name a folder written by Measurement.save.")
    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["kvar"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        return MeasurementData(
            about["step"],
            Rollouts(policy=_policy(about["policy"]), **_part(tensors, "rollouts")),
            TokenValues(**_part(tensors, "values")),
            GradientMoments(
                tuple(about["names"]),
                {g: GroupMoments(**_part(tensors, f"moments/{i}")) for i, g in enumerate(about["groups"])},
                tensors["prompt_index"],
                tensors.get("on"),
            ),
            about["seconds"],
            {name: value for name, value in header["config"].items() if name != "step"},
        )
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise RecordsError(f"{path} is damaged, or not a measurement ({error}); save it again.") from error


def _tensors(measurement: MeasurementData) -> dict[str, Tensor]:
    moments = measurement.moments
    parts: dict[str, Any] = {"rollouts": measurement.rollouts, "values": measurement.values}
    parts |= {f"moments/{i}": moments[group] for i, group in enumerate(moments)}
    values = {f"{part}/{f.name}": getattr(data, f.name) for part, data in parts.items() for f in fields(data)}
    values |= {"prompt_index": moments.prompt_index, "on": moments.on}
    return {name: x.detach().cpu().contiguous().clone() for name, x in values.items() if isinstance(x, Tensor)}


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(f"{prefix}/"): value for name, value in tensors.items() if name.startswith(f"{prefix}/")}


def _policy(held: dict[str, Any] | None) -> Policy | None:
    """The policy from its JSON, where tuples are lists."""
    if held is None:
        return None
    tuples: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in held.items()}
    return Policy(**tuples)
