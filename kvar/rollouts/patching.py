"""Replace a method of one instance temporarily."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["replaced"]


@contextmanager
def replaced(module: Any, method: str, run: Callable[..., Any]) -> Iterator[None]:
    """Replace ``module.method`` by ``run`` while the block runs; other instances of its class are unaffected.

    Args:
        module: the instance, of a module or another class.
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
