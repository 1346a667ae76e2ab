"""A module done again for every trajectory alone: its vector-Jacobian products, for whatever it computes.

The smallest module that keeps the trajectories apart is enough: an expert sees tokens of all of them, the block around
it gives every trajectory its own rows back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kvar.gradients.capture.axis import Axes, Axis, tensors_in
from kvar.gradients.capture.plan import UncoveredError
from kvar.gradients.rules.uses import Call, PerRow, Use

__all__ = ["Again"]


class Again:
    """One recorded call of a module, to be done again trajectory by trajectory.

    Args:
        module: the module.
        parameters: its parameters wanted here, by their names in it.
        args: its positional arguments.
        kwargs: its keyword arguments.
        axes: which tensors run over the trajectories.
    """

    def __init__(
        self,
        module: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        axes: Axes,
    ) -> None:
        self.module = module
        self.parameters = dict(parameters)
        self.n = axes.n
        self.given = _mapped((args, kwargs), lambda x: _Given(x.detach(), _sliced(x, axes)))
        self.reads = tuple(x.detach() for x in tensors_in((*args, *kwargs.values())))
        self._made: list[tuple[list[Tensor], dict[str, Tensor]]] = []
        self._results: dict[tuple[int, int], tuple[Tensor, dict[str, Tensor]]] = {}

    def uses(self, place: int) -> Callable[[Call], dict[str, Use]]:
        """The rule for one of the module's results, by its place among the floating-point tensors it returns."""
        names = list(self.parameters)

        def function(call: Call) -> dict[str, Use]:
            return {
                str(k): PerRow(lambda grad, name=name: self._take(place, grad, name))  # type: ignore[misc]
                for k, name in enumerate(names)
            }

        return function

    def _take(self, place: int, grad: Tensor, name: str) -> Tensor:
        """One parameter's gradients (N, *shape); computed for all at once, and held until asked for."""
        key = (place, id(grad))
        if key not in self._results or name not in self._results[key][1]:
            self._results[key] = (grad, self._gradients(place, grad))
        result = self._results[key][1].pop(name)
        if not self._results[key][1]:
            del self._results[key]
        return result

    @torch.enable_grad()
    def _gradients(self, place: int, grad: Tensor) -> dict[str, Tensor]:
        if not self._made:
            self._made = self._every()
        each = grad.shape[0] // self.n
        if any(outputs[place].shape != (each, *grad.shape[1:]) for outputs, _ in self._made):
            raise UncoveredError({id(p) for p in self.parameters.values()})
        rows = []
        for row, (outputs, leaves) in enumerate(self._made):
            output = outputs[place]
            own = grad[row * each : (row + 1) * each].to(output.dtype)
            if not output.requires_grad:
                rows.append([torch.zeros_like(leaf) for leaf in leaves.values()])
                continue
            rows.append(
                list(
                    torch.autograd.grad(
                        output,
                        list(leaves.values()),
                        own,
                        retain_graph=True,
                        allow_unused=True,
                        materialize_grads=True,
                    )
                )
            )
        return {name: torch.stack([row[k] for row in rows]) for k, name in enumerate(self.parameters)}

    def _every(self) -> list[tuple[list[Tensor], dict[str, Tensor]]]:
        try:
            return [self._once(row) for row in range(self.n)]
        except (
            RuntimeError,
            ValueError,
            TypeError,
            IndexError,
            AssertionError,
        ) as error:  # made for the whole batch alone
            raise UncoveredError({id(p) for p in self.parameters.values()}) from error

    def _once(self, row: int) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The module's results for one trajectory, and the leaves that stand for its parameters."""
        leaves = {name: p.detach().requires_grad_() for name, p in self.parameters.items()}
        args, kwargs = _mapped(self.given, lambda given: given.row(row, self.n))
        output = torch.func.functional_call(self.module, leaves, args, kwargs, tie_weights=False)
        return [x for x in tensors_in((output,)) if x.is_floating_point()], leaves


def _sliced(x: Tensor, axes: Axes) -> bool:
    """Whether an argument has rows for each trajectory."""
    return axes.of(x) is Axis.LEADING or (axes.of(x) is Axis.SCATTERED and x.dim() > 0 and x.shape[0] == axes.n)


class _Given:
    """An argument, and whether it runs over the trajectories."""

    def __init__(self, x: Tensor, leading: bool) -> None:
        self.x = x
        self.leading = leading

    def row(self, row: int, n: int) -> Tensor:
        """What one trajectory gets of it."""
        each = self.x.shape[0] // n if self.leading else 0
        return self.x[row * each : (row + 1) * each] if self.leading else self.x


def _mapped(value: Any, one: Callable[[Any], Any]) -> Any:
    """Tensors, or what stands for them, in nested tuples, lists and dicts, replaced."""
    if isinstance(value, (Tensor, _Given)):
        return one(value)
    if type(value) in (tuple, list):
        return type(value)(_mapped(v, one) for v in value)
    if type(value) is dict:
        return {key: _mapped(v, one) for key, v in value.items()}
    return value
