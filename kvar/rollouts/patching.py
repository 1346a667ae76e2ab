"""Exchange a method of one module for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

__all__ = ["replaced"]


@contextmanager
def replaced(module: nn.Module, method: str, run: Callable[..., Any]) -> Iterator[None]:
    """Let ``module.method`` be ``run`` while the block runs; other modules of its class keep theirs.

    Args:
        module: the instance.
        method: the method's name, such as "forward".
        run: what is called in its place, without ``self``.
    """
    before = module.__dict__.get(method)
    module.__dict__[method] = run
    try:
        yield
    finally:
        if before is None:
            module.__dict__.pop(method, None)
        else:
            module.__dict__[method] = before
