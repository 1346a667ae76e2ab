"""Run a function of a module through the forward of its wrapper (DDP, FSDP)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from torch import nn

from kvar.rollouts.patching import replaced

__all__ = ["through"]


def through(wrapper: nn.Module, module: nn.Module, function: Callable[[], Any]) -> Any:
    """``function()``, called from inside ``wrapper``'s forward.

    A wrapper prepares its gradient exchange in its own forward, but an objective may call the student several times and
    read its config, which the wrapper does not support. So the wrapper's forward is called once with the module's
    forward replaced by ``function``; the original forward is restored before ``function`` runs.

    Args:
        wrapper: the trainer's model; may be the module itself.
        module: the model inside.
        function: takes no arguments and returns a tensor, or tensors in tuples, lists or dicts.
    """
    if wrapper is module:
        return function()
    with ExitStack() as stack:

        def forward(*args: Any, **kwargs: Any) -> Any:
            stack.close()
            return function()

        stack.enter_context(replaced(module, "forward", forward))
        return wrapper()
