"""Replace a method of one module temporarily."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

__all__ = ["replaced"]


@contextmanager
def replaced(module: nn.Module, method: str, run: Callable[..., Any]) -> Iterator[None]:
    """Replace ``module.method`` by ``run`` while the block runs; other modules of its class are unaffected.

    Args:
        module: the instance.
        method: the method's name, such as "forward".
        run: the replacement, called without ``self``.
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
