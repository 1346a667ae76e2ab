"""Measure a module without changing its state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from kvar.rollouts import sharded
from kvar.rollouts.modes import undisturbed

__all__ = ["untouched", "unwrap"]

_QUANTISED = ("bitsandbytes", "hqq", "optimum", "quanto", "torchao")
"""Libraries whose parameters hold quantised weights."""


def unwrap(student: Any) -> nn.Module:
    """The plain module inside a data-parallel wrapper, as :func:`kvar.rollouts.sharded.unwrap` gives it.

    Raises:
        TypeError: the student is not a module.
        ValueError: a module that cannot be made whole here; quantised weights, which have no gradient (adapters on them
            have one).
    """
    student = sharded.unwrap(student)
    if hasattr(student, "peft_config"):
        return student
    for name, parameter in student.named_parameters():
        library = type(parameter).__module__.split(".")[0]
        if library in _QUANTISED or getattr(student, "hf_quantizer", None) is not None:
            raise ValueError(
                f"student.{name} is of a student with quantised weights, whose gradient is not defined: load it in "
                "float32 or bfloat16, or train LoRA adapters on it."
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
