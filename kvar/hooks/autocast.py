"""Measure the weights as they are, in fp32, while training runs under autocast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import nn

from kvar.rollouts.patching import replaced

__all__ = ["plain_forward"]


@contextmanager
def plain_forward(model: nn.Module) -> Iterator[None]:
    """The model with its own forward: accelerate puts one with autocast (``bf16``) in its place for training."""
    own: Any = model.__dict__.get("_original_forward")
    swap = own is not None and "forward" in model.__dict__
    with replaced(model, "forward", own) if swap else nullcontext():
        yield
