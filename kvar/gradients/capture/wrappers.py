"""Replacements for the methods of modules while a forward pass is recorded."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
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


Method = Callable[..., Any]


def recorded_layer(
    result: Capture, module: nn.Module, rule: Rule, parameters: dict[str, nn.Parameter], original: Method
) -> Method:
    """A layer's method that runs without gradients for its parameters, and records the call."""

    def run(*args: Any, **kwargs: Any) -> Any:
        active = {name: p for name, p in parameters.items() if p.requires_grad}  # frozen inside an outer layer's call
        if not active or not torch.is_grad_enabled():
            return original(*args, **kwargs)
        with frozen(active):
            output = original(*args, **kwargs)
        return result.record(module, rule, active, args, kwargs, output)

    return run


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
    result: Capture, module: nn.Module, rule: Rule, parameters: dict[str, nn.Parameter], original: Method
) -> Method:
    """An embedding layer's method that records the look-up inside it."""
    weight = parameters["weight"]

    def record(args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Any:
        return result.record(module, rule, parameters, args, kwargs, output)

    def run(*args: Any, **kwargs: Any) -> Any:
        with _Lookup(weight, record) if weight.requires_grad else nullcontext():
            return original(*args, **kwargs)

    return run


def recorded_for_rerun(
    result: Capture, module: nn.Module, parameters: dict[str, nn.Parameter], original: Method
) -> Method:
    """A module's method that runs without gradients for ``parameters``, and records the call to run it again."""

    def run(*args: Any, **kwargs: Any) -> Any:
        active = {name: p for name, p in parameters.items() if p.requires_grad}
        if not active or not torch.is_grad_enabled():
            return original(*args, **kwargs)
        call = Rerun(module, active, args, kwargs, result.axes)
        with frozen(active):
            output = original(*args, **kwargs)
        return result.record_rerun(call, output)

    return run


def cut_block(result: Capture, original: Method) -> Method:
    """A block's method that cuts the graph at its inputs and outputs."""

    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return original(*args, **kwargs)
        args, kwargs = result.cut((args, kwargs))
        return result.cut(original(*args, **kwargs))

    return run
