"""Recorded trajectories as padded arrays, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from kvar.records import Run
from kvar.returns import TokenValues

__all__ = ["TrajectoryBatch", "trajectory_batches"]

_COLUMNS = ["trajectory", "prompt", "position", "q", "v", "finished"]


@dataclass(frozen=True)
class TrajectoryBatch:
    """N recorded trajectories of one probe at one step.

    Attributes:
        values: (N, T) teacher values, float64.
        mask: (N, T).
        prompt: (N,).
        finished: (N,).
    """

    values: TokenValues
    mask: Tensor
    prompt: np.ndarray
    finished: np.ndarray


def trajectory_batches(run: Run, probe: str, step: int) -> Iterator[TrajectoryBatch]:
    """The trajectories of one measurement, in batches that together hold each of them once and whole.

    Args:
        run: from ``kvar.load``.
        probe: the probe's name.
        step: training step.

    Yields:
        Batches of about a million tokens or fewer.
    """
    left: dict[str, np.ndarray] | None = None
    for rows in run.batches("trajectories", _COLUMNS, {"probe": probe, "step": step}):
        columns = _arrays(rows)
        if left is not None:
            columns = {name: np.concatenate([left[name], columns[name]]) for name in columns}
        last = np.flatnonzero(columns["position"] == 0)[-1:]  # the last trajectory may go on in the next rows
        cut = int(last[0]) if len(last) else 0
        left = {name: values[cut:] for name, values in columns.items()}
        if cut:
            yield _padded({name: values[:cut] for name, values in columns.items()})
    if left is not None and len(left["position"]):
        yield _padded(left)


def _arrays(rows: pa.Table) -> dict[str, np.ndarray]:
    return {name: rows[name].to_numpy() for name in _COLUMNS}


def _padded(columns: dict[str, np.ndarray]) -> TrajectoryBatch:
    position = columns["position"]
    starts = np.flatnonzero(position == 0)
    row = np.cumsum(position == 0) - 1
    shape = (len(starts), int(position.max()) + 1)
    q, v, mask = np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=bool)
    q[row, position], v[row, position], mask[row, position] = columns["q"], columns["v"], True
    return TrajectoryBatch(
        TokenValues(torch.from_numpy(q), torch.from_numpy(v)),
        torch.from_numpy(mask),
        columns["prompt"][starts],
        columns["finished"][starts],
    )
