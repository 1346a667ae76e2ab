"""Intercepts operations that combine a parameter with tensors that run over the trajectories.

A parameter, or a tensor computed from parameters only (exp(A_log), 1 + w, a bias looked up by distance), is common to
all trajectories until an operation combines it with a tensor that runs over them. From then on each trajectory has a
copy, whose gradient is that trajectory's; one backward pass gives it for all trajectories. The copy that an operation
needs is defined in :mod:`kvar.gradients.operations`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kvar.gradients.capture.axis import Axes, Axis, tensors_in
from kvar.gradients.operations import Note, Operation, find_operation

__all__ = ["Trace"]

_LIKE = frozenset({"to", "type_as"})
"""Operations that take no entries from their other arguments."""


class Trace(TorchFunctionMode):
    """Marks the result of every operation, and calls the handlers of operations on parameters.

    Args:
        axes: the marks.
        wanted: id -> parameter.
        note: records a use; see :data:`kvar.gradients.operations.Note`.
    """

    def __init__(self, axes: Axes, wanted: Mapping[int, nn.Parameter], note: Note) -> None:
        super().__init__()
        self.axes = axes
        self.wanted = wanted
        self.note = note

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        given = list(tensors_in(args[:1] if name in _LIKE else (*args, *kwargs.values())))
        roots = self._roots(given) if torch.is_grad_enabled() else ()
        if roots:
            joined = any(self.axes.of(x) is not Axis.COMMON for x in given)
            handler = find_operation(name, joined=joined)
            if handler is not None:
                out = handler(Operation(self.axes, self.note, self._roots, name, func, args, kwargs, given))
                if out is not NotImplemented:
                    return out
        out = func(*args, **kwargs)
        if isinstance(out, (Tensor, tuple, list)) or name == "__setitem__":
            self.axes.follow(name, args, given, out)
            if roots:
                for made in tensors_in((out,)):
                    if made.requires_grad and id(made) not in self.wanted and self.axes.of(made) is Axis.COMMON:
                        self.axes.mark(made, Axis.COMMON, roots)
        return out

    def _roots(self, given: list[Tensor]) -> tuple[nn.Parameter, ...]:
        """The wanted parameters from which common tensors among ``given`` are computed."""
        roots: dict[int, nn.Parameter] = {}
        for x in given:
            if x.requires_grad:
                parameters = (self.wanted[id(x)],) if id(x) in self.wanted else self.axes.roots(x)
                roots |= {id(p): p for p in parameters}
        return tuple(roots.values())
