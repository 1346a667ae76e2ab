"""Measure a module without changing its state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from kvar.rollouts.modes import check_module, undisturbed

__all__ = ["untouched", "unwrap"]


def unwrap(student: nn.Module) -> nn.Module:
    """The plain module inside a data-parallel wrapper.

    Raises:
        TypeError: the student is not a module.
        ValueError: a compiled or sharded module, with the remedy.
    """
    check_module(student)
    if isinstance(student, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
        student = student.module
    for name, module in student.named_modules():
        where = f"student.{name}" if name else "student"
        if hasattr(module, "_orig_mod"):
            raise ValueError(f"{where} is compiled by torch.compile: pass the plain module (its ._orig_mod) instead.")
        if getattr(module, "_compiled_call_impl", None) is not None:
            raise ValueError(f"{where} is compiled in place by .compile(): measure a copy that is not compiled.")
        if "FullyShardedDataParallel" in type(module).__name__ or type(module).__name__.startswith("FSDP"):
            raise ValueError(
                f"{where} is sharded ({type(module).__name__}): gather it into a plain module before measuring."
            )
    return student


@contextmanager
def untouched(student: nn.Module) -> Iterator[None]:
    """Run a block with ``student`` in eval mode and gradients on; afterwards restore its state.

    Restored, also when the block raises: every submodule's training flag, every ``.grad`` (the same tensor with the
    same values), every buffer, and torch's random state on the CPU and on CUDA devices.
    """
    grads = [(parameter, parameter.grad) for parameter in student.parameters()]
    with undisturbed(student):
        try:
            for parameter, _ in grads:
                parameter.grad = None
            with torch.inference_mode(False), torch.enable_grad():
                yield
        finally:
            for parameter, grad in grads:
                parameter.grad = grad
