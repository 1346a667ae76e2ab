"""What stands in a module's place while a forward pass is captured."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kvar.gradients.capture.modules import frozen
from kvar.gradients.capture.row_by_row import Again
from kvar.gradients.rules import Rule

if TYPE_CHECKING:
    from kvar.gradients.capture.forward import Capture

__all__ = ["cut", "done_again", "tapped", "wrapped"]


def wrapped(
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
    active = {name: p for name, p in parameters.items() if p.requires_grad}  # false inside an outer layer's own call
    if not active or not torch.is_grad_enabled():
        return original(*args, **kwargs)
    with frozen(active):
        output = original(*args, **kwargs)
    return result.record(module, rule, active, args, kwargs, output)


class _Tap(TorchFunctionMode):
    """Records ``torch.nn.functional.embedding`` where it looks up the given weight."""

    def __init__(self, weight: Tensor, record: Callable[..., Any]) -> None:
        super().__init__()
        self.weight = weight
        self.record = record

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.embedding or len(args) < 2 or args[1] is not self.weight or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        with frozen({"weight": self.weight}):
            output = func(*args, **kwargs)
        if kwargs.get("max_norm") is not None or kwargs.get("scale_grad_by_freq"):
            return func(*args, **kwargs)  # not linear in the table, or mixing trajectories: left to be missed
        return self.record((args[0],), kwargs, output)


def tapped(
    result: Capture,
    module: nn.Module,
    rule: Rule,
    parameters: dict[str, nn.Parameter],
    original: Callable[..., Any],
    /,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Run an embedding layer, recording the look-up inside it."""
    weight = parameters["weight"]
    if not weight.requires_grad:
        return original(*args, **kwargs)

    def record(inner: tuple[Any, ...], options: dict[str, Any], output: Tensor) -> Any:
        return result.record(module, rule, parameters, inner, options, output)

    with _Tap(weight, record):
        return original(*args, **kwargs)


def done_again(
    result: Capture,
    module: nn.Module,
    parameters: dict[str, nn.Parameter],
    original: Callable[..., Any],
    /,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Run a module without gradients for some parameters inside it, to be done again for every trajectory alone."""
    active = {name: p for name, p in parameters.items() if p.requires_grad}
    if not active or not torch.is_grad_enabled():
        return original(*args, **kwargs)
    call = Again(module, active, args, kwargs, result.axes)
    with frozen(active):
        output = original(*args, **kwargs)
    return result.record_again(call, output)


def cut(result: Capture, original: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Run a block on a piece of graph of its own."""
    if not torch.is_grad_enabled():
        return original(*args, **kwargs)
    args, kwargs = result.cut((args, kwargs))
    return result.cut(original(*args, **kwargs))
