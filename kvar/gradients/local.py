"""The measurement of one process: :class:`LocalMeasurement`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from kvar.gradients.cotangents import Weights
from kvar.gradients.moments import GroupMoments
from kvar.rollouts.types import Rollouts

__all__ = ["LocalMeasurement"]


@dataclass(frozen=True)
class LocalMeasurement:
    """Moments of one process's trajectories, with the checked inputs of the measurement.

    Attributes:
        student: the plain module; its parameters are the same on every process.
        rollouts: the process's trajectories.
        weights: as the engine takes them.
        names: the estimators', or None.
        groups: group name -> parameters.
        moments: group name -> moments, from the engine.
        options: the engine's keyword arguments.
    """

    student: nn.Module
    rollouts: Rollouts
    weights: Weights
    names: tuple[str, ...] | None
    groups: dict[str, list[nn.Parameter]]
    moments: dict[str, GroupMoments]
    options: dict[str, Any]
