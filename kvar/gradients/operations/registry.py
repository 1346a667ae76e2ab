"""The registry of handlers by operation, and their argument, an :class:`Operation`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from kvar.gradients.capture.axis import Axes, Axis
from kvar.gradients.rules.uses import Call, Use, written_out

__all__ = ["Handler", "Note", "Operation", "find_operation", "matrix_of", "operation", "pulled"]


class Note(Protocol):
    """Records a use of parameters."""

    def __call__(
        self,
        kind: str,
        parameters: tuple[nn.Parameter, ...],
        function: Callable[[Call], dict[str, Use]],
        output: Tensor,
        reads: tuple[Tensor, ...] = (),
    ) -> Tensor:
        """Record that ``function`` makes the parameters' gradients from that of ``output``; return the output to use.

        Args:
            kind: "joined", or the operation's name if its effect must be tried first.
            parameters: named "0", "1", ... in the result of ``function``.
            function: a rule.
            output: (N, ...).
            reads: tensors that ``function`` reads later.
        """
        ...


@dataclass(frozen=True)
class Operation:
    """One operation with an argument that is a parameter or is computed from parameters only.

    Attributes:
        axes: how tensors hold the trajectories.
        note: records a use.
        roots_of: the wanted parameters that some tensors are computed from.
        name: the operation's.
        func: the operation itself.
        args: its positional arguments.
        kwargs: its keyword arguments.
        given: the tensors among them.
    """

    axes: Axes
    note: Note
    roots_of: Callable[[list[Tensor]], tuple[nn.Parameter, ...]]
    name: str
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    given: list[Tensor]

    def common(self, x: Any) -> bool:
        """Whether ``x`` is a parameter or computed from parameters only."""
        return isinstance(x, Tensor) and self.axes.of(x) is Axis.COMMON and bool(self.roots_of([x]))

    def leading(self, x: Any) -> bool:
        """Whether ``x`` runs over the trajectories on its first axis."""
        if not isinstance(x, Tensor) or self.axes.of(x) is not Axis.LEADING:
            return False
        return x.dim() > 0 and x.shape[0] % self.axes.n == 0

    def own_copies(self, u: Tensor, dims: int, kind: str = "joined") -> Tensor:
        """A copy of ``u`` for each trajectory, (N, 1, ..., 1, *u.shape) with ``dims`` axes after the first one or more.

        Args:
            u: common, with ``dims`` axes at most.
            dims: the axes after that of the trajectories.
            kind: see :class:`Note`.
        """
        n, shape = self.axes.n, tuple(u.shape)
        view = u.detach().reshape(1, *[1] * (dims - u.dim()), *shape)
        copies = view.expand(n, *view.shape[1:]).requires_grad_()
        parameters = self.roots_of([u])
        rule = written_out(parameters, lambda p, grad: pulled(u, p, grad.reshape(n, *shape)))
        copies = self.note(kind, parameters, rule, copies)
        self.axes.mark(copies, Axis.LEADING)
        return copies

    def alike(self, u: Tensor, made: Tensor) -> Tensor:
        """``made``, marked as computed from the same parameters as ``u``."""
        self.axes.mark(made, Axis.COMMON, self.roots_of([u]))
        return made

    @property
    def in_place(self) -> bool:
        """Whether the operation changes its first argument."""
        return (self.name.endswith("_") and not self.name.endswith("__")) or self.name.startswith("__i")

    def run(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call an operation whose result runs over the trajectories."""
        out = func(*args, **kwargs)
        if isinstance(out, Tensor):
            self.axes.mark(out, Axis.LEADING)
        return out


def pulled(u: Tensor, parameter: nn.Parameter, grads: Tensor) -> Tensor:
    """Gradients (N, *u.shape) of trajectories' copies of ``u`` as gradients (N, *parameter.shape)."""
    if u is parameter:
        return grads
    grads = grads.to(u.dtype)
    with torch.enable_grad():
        try:
            (out,) = torch.autograd.grad(
                u, parameter, grads, retain_graph=True, is_grads_batched=True, materialize_grads=True
            )
        except RuntimeError:  # an operation that can't be batched
            each = [torch.autograd.grad(u, parameter, g, retain_graph=True, materialize_grads=True)[0] for g in grads]
            out = torch.stack(each)
    return out


Handler = Callable[[Operation], Any]
"""Runs an operation, records the use and returns the result; or NotImplemented, then the operation runs unchanged."""

_JOINING: dict[str, Handler] = {}
_ALONE: dict[str, Handler] = {}


def operation(*names: str, joined: bool = True) -> Callable[[Handler], Handler]:
    """Register a handler for operations by the names of their functions.

    Args:
        names: ``__name__`` of the functions, without underscores at either end; "" stands for any other.
        joined: whether some other argument runs over the trajectories.
    """

    def register(handler: Handler) -> Handler:
        for name in names:
            (_JOINING if joined else _ALONE)[name] = handler
        return handler

    return register


def find_operation(name: str, *, joined: bool) -> Handler | None:
    """The handler of an operation."""
    table = _JOINING if joined else _ALONE
    return table.get(name.strip("_")) or table.get("")


def matrix_of(u: Tensor, operation: Operation) -> tuple[nn.Parameter, bool] | None:
    """The parameter that ``u`` is, or is the transpose of, and whether it is transposed; else None."""
    roots = operation.roots_of([u])
    if u.dim() != 2 or len(roots) != 1 or roots[0].dim() != 2:
        return None
    (root,) = roots
    if u is root:
        return root, False
    if u._base is root and u.shape == root.shape[::-1] and u.stride() == root.stride()[::-1]:
        return root, True
    return None
