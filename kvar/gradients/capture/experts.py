"""Layers of experts with transformers' common interface: hidden states, the chosen experts, their weights.

The attributes of a module made by ``transformers.integrations.moe.use_experts_implementation`` describe it: two stacks
of matrices (up, with or without a gate, and down), with or without biases, transposed or not. Tokens are sorted by
expert, so that each expert multiplies its rows once, and each row's trajectory is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kvar.gradients.capture.axis import Axis
from kvar.gradients.capture.modules import frozen
from kvar.gradients.capture.record import Capture
from kvar.gradients.rules.uses import Call, PerExpert, PerRow, Use

__all__ = ["by_expert", "expert_layers"]

_ATTRIBUTES = ("has_gate", "has_bias", "is_transposed", "num_experts")


def expert_layers(
    student: nn.Module, wanted: Mapping[int, nn.Parameter]
) -> Iterator[tuple[nn.Module, dict[str, nn.Parameter]]]:
    """The modules with this interface, with their wanted parameters by name."""
    for module in student.modules():
        if not all(hasattr(module, name) for name in _ATTRIBUTES) or not _complete(module):
            continue
        parameters = {name: p for name, p in module._parameters.items() if p is not None and id(p) in wanted}
        if parameters and set(parameters) <= set(_names(module)):
            yield module, parameters


def _names(module: Any) -> tuple[str, ...]:
    up = "gate_up_proj" if module.has_gate else "up_proj"
    return (up, "down_proj", f"{up}_bias", "down_proj_bias") if module.has_bias else (up, "down_proj")


def _complete(module: Any) -> bool:
    dims = [3, 3, 2, 2]
    return all(
        isinstance(module._parameters.get(name), nn.Parameter) and module._parameters[name].dim() == dim
        for name, dim in zip(_names(module), dims, strict=False)
    )


def by_expert(
    result: Capture, module: Any, parameters: dict[str, nn.Parameter], original: Callable[..., Any]
) -> Callable[..., Any]:
    """The forward method of a layer of experts that runs each on its tokens, and records the rows of every expert.

    Args:
        result: the capture.
        module: the layer.
        parameters: the wanted ones, by name.
        original: the layer's forward method, for calls with other arguments.

    Returns:
        hidden states (R, d), R = N T; experts (R, K) int64; weights (R, K) -> (R, d).
    """

    def run(*args: Any, **kwargs: Any) -> Any:
        active = {name: p for name, p in parameters.items() if p.requires_grad}
        given = (*args, *kwargs.values())
        if not active or not torch.is_grad_enabled() or not _fits(result, module, given):
            return original(*args, **kwargs)
        hidden, chosen, weights = given
        k = chosen.shape[1]
        expert, order = chosen.reshape(-1).sort(stable=True)
        token = order // k
        counts = tuple(torch.bincount(expert, minlength=module.num_experts).tolist())
        routed = _Routed(module, active, counts, token // (len(hidden) // result.n), result)
        up, down = _names(module)[:2]
        shifts: tuple[str | None, str | None] = (f"{up}_bias", f"{down}_bias") if module.has_bias else (None, None)
        with frozen(active):
            inner = routed.linear(hidden[token], up, shifts[0], expert)
            inner = module._apply_gate(inner) if module.has_gate else module.act_fn(inner)
            outer = routed.linear(inner, down, shifts[1], expert)
            if getattr(module, "has_post_expert_norm", False):
                outer = module.post_expert_norm(outer)
            outer = outer * weights.reshape(-1)[order][:, None]
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        out = outer[back].view(len(hidden), k, -1).sum(dim=1).to(hidden.dtype)
        result.axes.mark(out, Axis.LEADING)
        return out

    return run


def _fits(result: Capture, module: Any, given: tuple[Any, ...]) -> bool:
    """Whether a call has the interface's arguments, and its rows run over the trajectories."""
    if len(given) != 3 or not all(isinstance(x, Tensor) and x.dim() == 2 for x in given):
        return False
    hidden, chosen, weights = given
    if len(hidden) % result.n or len(chosen) != len(hidden) or chosen.shape != weights.shape:
        return False
    if result.axes.of(hidden) is not Axis.LEADING or chosen.is_floating_point():
        return False
    return int(chosen.min()) >= 0 and int(chosen.max()) < module.num_experts


@dataclass
class _Routed:
    """Rows sorted by expert."""

    module: Any
    active: dict[str, nn.Parameter]
    counts: tuple[int, ...]
    trajectory: Tensor
    result: Capture

    def linear(self, rows: Tensor, name: str, bias: str | None, expert: Tensor) -> Tensor:
        """(S, k) -> (S, m), each expert's matrix on its rows; recorded."""
        stack = getattr(self.module, name)
        turned = bool(self.module.is_transposed)
        parts = [
            F.linear(part, stack[x].mT if turned else stack[x])
            for x, part in enumerate(rows.split(self.counts))
            if len(part)
        ]
        out = torch.cat(parts)
        if bias is not None:
            out = out + getattr(self.module, bias)[expert]
        wanted = tuple(p for p in (name, bias) if p in self.active)
        if not wanted:
            return out
        fixed, (x, trajectory, n) = rows.detach(), (len(self.counts), self.trajectory, self.result.n)

        def shifts(grad: Tensor) -> Tensor:
            table = grad.new_zeros(n * x, grad.shape[1])
            return table.index_add_(0, trajectory * x + expert, grad).view(n, x, -1)

        def function(call: Call) -> dict[str, Use]:
            matrix = PerExpert(fixed, 0 if turned else 1, self.counts, trajectory)
            uses = {name: matrix, bias: PerRow(shifts)}
            return {str(k): uses[p] for k, p in enumerate(wanted)}  # type: ignore[misc]

        return self.result.note("experts", tuple(self.active[p] for p in wanted), function, out, (fixed,))
