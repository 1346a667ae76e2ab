"""Measure in the weights' own precision while training runs under autocast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import nn

from kvar.rollouts.patching import replaced

__all__ = ["plain_forward"]


@contextmanager
def plain_forward(model: nn.Module) -> Iterator[None]:
    """The model with its original forward, which accelerate replaces by one under autocast (``bf16``) for training."""
    original: Any = model.__dict__.get("_original_forward")
    swap = original is not None and "forward" in model.__dict__
    with replaced(model, "forward", original) if swap else nullcontext():
        yield
