"""Run a function of a module through the forward of its wrapper (DDP, FSDP)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

__all__ = ["through"]


def through(wrapper: nn.Module, module: nn.Module, function: Callable[[], Any]) -> Any:
    """``function()``, called from inside ``wrapper``'s forward.

    A wrapper prepares its gradient exchange in its own forward. An objective may call the student several times, and
    read its config; both go wrong on the wrapper. So the wrapper's forward is called once, with the module's forward
    standing in for ``function``, which finds the module as it is.

    Args:
        wrapper: what the trainer hands out; may be the module itself.
        module: the model inside.
        function: takes nothing; what it returns must be a tensor, or tensors in tuples, lists or dicts.
    """
    if wrapper is module:
        return function()
    own = module.__dict__.get("forward")

    def restore() -> None:
        if own is None:
            module.__dict__.pop("forward", None)
        else:
            module.__dict__["forward"] = own

    def forward(*args: Any, **kwargs: Any) -> Any:
        restore()
        return function()

    module.__dict__["forward"] = forward
    try:
        return wrapper()
    finally:
        restore()
