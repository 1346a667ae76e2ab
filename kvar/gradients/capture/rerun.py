"""A module run again for each trajectory, which gives its vector-Jacobian products whatever it computes.

It must keep the trajectories apart: a single expert sees tokens of all of them, the block around it returns each
trajectory's rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kvar.gradients.capture.axis import Axes, Axis, mapped, tensors_in
from kvar.gradients.capture.plan import UncoveredError
from kvar.gradients.rules.uses import Call, Use, written_out

__all__ = ["Rerun"]


class Rerun:
    """One recorded call of a module, run again trajectory by trajectory when its gradients are needed.

    Args:
        module: the module.
        parameters: its wanted parameters, by their names in it.
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
        self.given = mapped((args, kwargs), lambda x: _Argument(x.detach(), _has_rows(x, axes)))
        self.reads = tuple(x.detach() for x in tensors_in((*args, *kwargs.values())))
        self._runs: list[tuple[list[Tensor], dict[str, Tensor]]] = []
        self._results: dict[tuple[int, int], tuple[Tensor, dict[str, Tensor]]] = {}

    def uses(self, place: int) -> Callable[[Call], dict[str, Use]]:
        """The rule for one of the module's results, by its place among the floating-point tensors it returns."""
        return written_out(list(self.parameters), lambda name, grad: self._take(place, grad, name))

    def _take(self, place: int, grad: Tensor, name: str) -> Tensor:
        """One parameter's gradients (N, *shape); computed for all parameters at once, and kept until taken."""
        key = (place, id(grad))
        if key not in self._results or name not in self._results[key][1]:
            self._results[key] = (grad, self._gradients(place, grad))
        result = self._results[key][1].pop(name)
        if not self._results[key][1]:
            del self._results[key]
        return result

    @torch.enable_grad()
    def _gradients(self, place: int, grad: Tensor) -> dict[str, Tensor]:
        self._runs = self._runs or self._all_runs()
        each = grad.shape[0] // self.n
        if any(outputs[place].shape != (each, *grad.shape[1:]) for outputs, _ in self._runs):
            raise UncoveredError({id(p) for p in self.parameters.values()})
        rows: list[tuple[Tensor, ...]] = []
        for (outputs, leaves), part in zip(self._runs, grad.split(each), strict=True):
            output, wanted = outputs[place], list(leaves.values())
            if not output.requires_grad:
                rows.append(tuple(torch.zeros_like(leaf) for leaf in wanted))
                continue
            rows.append(
                torch.autograd.grad(
                    output, wanted, part.to(output.dtype), retain_graph=True, allow_unused=True, materialize_grads=True
                )
            )
        return {name: torch.stack(parts) for name, parts in zip(self.parameters, zip(*rows, strict=True), strict=True)}

    def _all_runs(self) -> list[tuple[list[Tensor], dict[str, Tensor]]]:
        try:
            return [self._run(row) for row in range(self.n)]
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:  # it needs the whole batch
            raise UncoveredError({id(p) for p in self.parameters.values()}) from error

    def _run(self, row: int) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The module's results for one trajectory, and the leaves that replace its parameters."""
        leaves = {name: p.detach().requires_grad_() for name, p in self.parameters.items()}
        args, kwargs = mapped(self.given, lambda argument: argument.row(row, self.n), _Argument)
        output = torch.func.functional_call(self.module, leaves, args, kwargs, tie_weights=False)
        return [x for x in tensors_in((output,)) if x.is_floating_point()], leaves


def _has_rows(x: Tensor, axes: Axes) -> bool:
    """Whether an argument has rows for each trajectory."""
    return axes.of(x) is Axis.LEADING or (axes.of(x) is Axis.SCATTERED and x.dim() > 0 and x.shape[0] == axes.n)


@dataclass(frozen=True)
class _Argument:
    """An argument of the call, and whether it runs over the trajectories."""

    x: Tensor
    leading: bool

    def row(self, row: int, n: int) -> Tensor:
        """The part for one trajectory."""
        each = self.x.shape[0] // n
        return self.x[row * each : (row + 1) * each] if self.leading else self.x
