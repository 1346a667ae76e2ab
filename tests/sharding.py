"""FSDP2 on the CPU: models split by hand, and trainers that accelerate splits as it does on accelerators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import nn


def sharded(model: Any) -> Any:
    """The same module with ``fully_shard`` on each block and on the whole, as the default process group splits it."""
    from torch.distributed.fsdp import fully_shard

    for block in (b for m in model.modules() if isinstance(m, nn.ModuleList) and not _inside(model, m) for b in m):
        fully_shard(block)
    return fully_shard(model) or model


def _inside(model: nn.Module, inner: nn.ModuleList) -> bool:
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and m is not inner]
    return any(inner is m for outer in lists for m in outer.modules())


@contextmanager
def fsdp_on_cpus() -> Iterator[None]:
    """accelerate with FSDP on CPUs, which it otherwise trains under DDP: its processes pass for a GPU's."""
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType

    def set_device(state: Any) -> None:
        state.device = torch.device("cpu")

    AcceleratorState._reset_state(True)
    made = ("gloo", DistributedType.MULTI_GPU)
    backend = mock.patch.object(PartialState, "_prepare_backend", return_value=made)
    environment = mock.patch.dict("os.environ")  # accelerate writes ACCELERATE_USE_FSDP
    with backend, environment, mock.patch.object(PartialState, "set_device", set_device):
        yield
    AcceleratorState._reset_state(True)
