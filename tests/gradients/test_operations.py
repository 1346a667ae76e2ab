"""Parameters that meet the trajectories in a bare operation, of every kind there is a handler for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.gradients.layers import Tiny, checked


class Bare(nn.Module):
    """f(x, u, v) of bare parameters u and v."""

    def __init__(self, function: Callable[[Tensor, Tensor, Tensor], Tensor], *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        self.u, self.v = (nn.Parameter(torch.rand(shape) + 0.5) for shape in (*shapes, (6,))[:2])

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.u, self.v)


def _convolved(x: Tensor, u: Tensor, v: Tensor) -> Tensor:
    return F.conv1d(x.mT, u, v, padding=2, groups=6)[..., : x.shape[1]].mT


def _sinks(x: Tensor, u: Tensor, v: Tensor) -> Tensor:
    scores = torch.cat([_causal(x @ x.mT), u.reshape(1, 1, -1).expand(x.shape[0], x.shape[1], -1)], dim=-1)
    return scores.softmax(-1)[..., :-1] @ (x * v)


def _grouped(x: Tensor, u: Tensor, v: Tensor) -> Tensor:
    return F.conv1d(x.mT, u, v, padding=4, dilation=2, groups=2)[..., : x.shape[1]].mT


def _causal(scores: Tensor) -> Tensor:
    return scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)


def _in_place(x: Tensor, u: Tensor, v: Tensor) -> Tensor:
    y = x * 1.0
    y *= u
    y += v
    return y


OPERATIONS: dict[str, tuple[Callable[[Tensor, Tensor, Tensor], Tensor], tuple[tuple[int, ...], ...]]] = {
    "gain and shift": (lambda x, u, v: x * (1 + u) - v, ((6,),)),
    "scale of flattened rows": (lambda x, u, v: (x.flatten(0, 1) * u / v).view(x.shape), ((1, 6),)),
    "one number": (lambda x, u, v: x * u.exp() + v.mean(), ((),)),
    "power and where": (lambda x, u, v: torch.where(x > 0, x.abs() ** u, v), ((6,),)),
    "in place": (_in_place, ((6,),)),
    "functional linear": (lambda x, u, v: F.linear(x, u, v), ((6, 6),)),
    "transposed product": (lambda x, u, v: x @ u.T + x @ u, ((6, 6),)),
    "product from the left": (lambda x, u, v: (u @ x.mT).mT * v, ((6, 6),)),
    "product with a computed matrix": (lambda x, u, v: F.linear(x, u.softmax(-1) * v), ((6, 6),)),
    "norms": (lambda x, u, v: F.layer_norm(x, (6,), u, v) + F.rms_norm(x, (6,), v), ((6,),)),
    "group norm": (lambda x, u, v: F.group_norm(x.flatten(0, 1), 2, u, v).view(x.shape), ((6,),)),
    "depthwise convolution": (_convolved, ((6, 1, 3),)),
    "grouped convolution": (_grouped, ((6, 3, 3),)),
    "attention sinks": (_sinks, ((1,),)),
    "einsum": (lambda x, u, v: torch.einsum("ntd,de->nte", x, u) * v, ((6, 6),)),
    "look-up by an index": (lambda x, u, v: x + u[(x[..., 0] > 0).long()] * v, ((2, 6),)),
    "bias by distance": (lambda x, u, v: _causal(x @ x.mT + u[_distances(x)]).softmax(-1) @ x * v, ((4,),)),
}


def _distances(x: Tensor) -> Tensor:
    t = torch.arange(x.shape[1])
    return (t[:, None] - t).abs().clamp(max=3)[None]


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation(name: str) -> None:
    function, shapes = OPERATIONS[name]
    torch.manual_seed(0)
    assert checked(Tiny(Bare(function, *shapes))) == []


@pytest.mark.filterwarnings("ignore:no rule covers")
def test_a_layer_that_sees_the_padding_is_measured_alone() -> None:
    """In a batch it would see what a trajectory alone does not: the trial has a padded row to notice it by."""
    texts = checked(Tiny(Bare(lambda x, u, v: x + (x * u).mean(dim=1, keepdim=True) * v, (6,))))
    assert len(texts) == 1
    assert "layer.u" in texts[0]


class _Squared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, u: Tensor) -> Tensor:
        ctx.save_for_backward(x, u)
        return x * u * u

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, u = ctx.saved_tensors
        return grad * u * u, (2 * grad * x * u).flatten(0, -2).sum(dim=0)


def test_a_custom_function_is_done_again() -> None:
    """No operation is seen inside it, so its module is done again for every trajectory."""
    assert checked(Tiny(Bare(lambda x, u, v: _Squared.apply(x, u) * v, (6,)))) == []


class Chosen(nn.Module):
    """Tokens gathered for one of two linear maps, in the order of the data: only the whole keeps trajectories apart."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.ModuleDict({"a": nn.Linear(6, 6), "b": nn.Linear(6, 6)})

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, 6)
        out = torch.zeros_like(flat)
        for name, where in (("a", flat[:, 0] > 0), ("b", flat[:, 0] <= 0)):
            rows = where.nonzero()[:, 0]
            out.index_add_(0, rows, self.maps[name](flat[rows]))
        return out.view(x.shape)


def test_gathered_tokens() -> None:
    assert checked(Tiny(Chosen())) == []
