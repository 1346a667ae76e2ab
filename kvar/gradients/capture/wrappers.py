"""The functions that replace methods of modules while a forward pass is recorded.

Each takes the capture, what it needs to know of the module, and the original method; ``functools.partial`` fills these
in, so that the arguments of the call follow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kvar.gradients.capture.modules import frozen
from kvar.gradients.capture.record import Capture
from kvar.gradients.capture.rerun import Rerun
from kvar.gradients.rules import Rule

__all__ = ["cut_block", "recorded_for_rerun", "recorded_layer", "recorded_lookup"]


def recorded_layer(
    result: Capture,
    module: nn.Module,
    rule: Rule,
    parameters: dict[str, nn.Parameter],
    original: Callable[..., Any],
    /,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Run a layer without gradients for its parameters, and record the call."""
    active = {name: p for name, p in parameters.items() if p.requires_grad}  # frozen inside an outer layer's call
    if not active or not torch.is_grad_enabled():
        return original(*args, **kwargs)
    with frozen(active):
        output = original(*args, **kwargs)
    return result.record(module, rule, active, args, kwargs, output)


class _Lookup(TorchFunctionMode):
    """Calls ``record`` on each ``torch.nn.functional.embedding`` that reads the given weight."""

    def __init__(self, weight: Tensor, record: Callable[..., Any]) -> None:
        super().__init__()
        self.weight = weight
        self.record = record

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        recorded = func is F.embedding and len(args) > 1 and args[1] is self.weight and torch.is_grad_enabled()
        if not recorded or kwargs.get("max_norm") is not None:  # not linear in the table: no record, hence missed
            return func(*args, **kwargs)
        with frozen({"weight": self.weight}):
            output = func(*args, **kwargs)
        return self.record((args[0],), kwargs, output)


def recorded_lookup(
    result: Capture,
    module: nn.Module,
    rule: Rule,
    parameters: dict[str, nn.Parameter],
    original: Callable[..., Any],
    /,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Run an embedding layer, and record the look-up inside it."""
    weight = parameters["weight"]
    if not weight.requires_grad:
        return original(*args, **kwargs)

    def record(inner: tuple[Any, ...], options: dict[str, Any], output: Tensor) -> Any:
        return result.record(module, rule, parameters, inner, options, output)

    with _Lookup(weight, record):
        return original(*args, **kwargs)


def recorded_for_rerun(
    result: Capture,
    module: nn.Module,
    parameters: dict[str, nn.Parameter],
    original: Callable[..., Any],
    /,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Run a module without gradients for some parameters inside it, and record the call to run it again by rows."""
    active = {name: p for name, p in parameters.items() if p.requires_grad}
    if not active or not torch.is_grad_enabled():
        return original(*args, **kwargs)
    call = Rerun(module, active, args, kwargs, result.axes)
    with frozen(active):
        output = original(*args, **kwargs)
    return result.record_rerun(call, output)


def cut_block(result: Capture, original: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Run a block on a piece of graph of its own."""
    if not torch.is_grad_enabled():
        return original(*args, **kwargs)
    args, kwargs = result.cut((args, kwargs))
    return result.cut(original(*args, **kwargs))
