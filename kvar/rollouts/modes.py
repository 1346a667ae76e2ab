"""Run a model in eval mode, or without changing its state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["check_module", "eval_mode", "undisturbed"]


def check_module(model: Any, name: str = "student") -> None:
    """Raise TypeError for a model that is no module, such as its name."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"{name} must be a torch.nn.Module; got {type(model).__name__}.")


@contextmanager
def eval_mode(*models: Any) -> Iterator[None]:
    """Run a block with models in eval mode; afterwards every submodule's training flag is restored.

    Args:
        models: modules; others (a teacher given as a function, None) are ignored.
    """
    modes = [(m, m.training) for model in models if isinstance(model, nn.Module) for m in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Run a block with ``model`` in eval mode; afterwards its flags, buffers and torch's random state are restored.

    The random state is that of the CPU, and of all CUDA devices if CUDA is in use.
    """
    buffers = [
        (module, name, buffer, None if buffer is None else buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
    ]
    in_use = torch.cuda.is_available() and torch.cuda.is_initialized()
    devices = range(torch.cuda.device_count() if in_use else 0)
    try:
        with eval_mode(model), torch.random.fork_rng(devices=devices):
            yield
    finally:
        with torch.no_grad():
            for module, name, buffer, copy in buffers:
                if buffer is not None and copy is not None and not torch.equal(buffer, copy):
                    buffer.copy_(copy)
                module._buffers[name] = buffer
