"""Slow, obvious per-row returns, from the definitions and without the telescoped sums, and the cases to try them on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from kvar.returns import Geometric, Immediate, Kernel, KStep, LagKernel, ScaledComb, Stepwise, TokenValues, Window


def one_step(q: list[float], v: list[float], tail: float | None = None) -> list[float]:
    """LLMR: r_t = q_t - V_{t+1}, G_t = sum_{i>=t} r_i.

    A finished row (tail None) has V_{T+1} = 0. A cut one has V_{T+1} = tail, which is added back as its bootstrap.
    """
    after_last = 0.0 if tail is None else tail
    v_next = [*v[1:], after_last]
    out = []
    for t in range(len(q)):
        total = after_last
        for i in range(t, len(q)):
            total += q[i] - v_next[i]
        out.append(total)
    return out


def k_step(q: list[float], v: list[float], k: int, terminal: str) -> list[float]:
    """The K-step Bellman recursion: reward q_t - V(K steps on) now, then the return from there.

    anchored: a step that would pass the last token stops at it. free: past the last token V and the return are 0.
    """
    last = len(q) - 1

    def from_(t: int) -> float:
        if t == last:
            return q[t]
        on = t + k
        if on > last:
            if terminal == "free":
                return q[t]
            on = last
        return (q[t] - v[on]) + from_(on)

    return [from_(t) for t in range(len(q))]


def weighted(u: list[float], kernel: Kernel) -> list[float]:
    """(4') as it is written, one weight at a time."""
    length = len(u)
    out = []
    for t in range(length):
        w = kernel(list(range(length - t)), remaining=length - 1 - t).tolist()
        out.append(sum(w[j] * u[t + j] for j in range(length - t)))
    return out


@dataclass
class Batch:
    """Ragged rows, padded with ``filler``."""

    values: TokenValues
    mask: Tensor
    lengths: list[int]


def batch(
    lengths: list[int], seed: int, width: int | None = None, filler: float = 0.0, dtype: torch.dtype = torch.float64
) -> Batch:
    """Random values with gaps of zero or more; ``filler`` on padding."""
    width = max([1, *lengths]) if width is None else width
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(len(lengths), width, generator=generator, dtype=dtype)
    gap = torch.rand(len(lengths), width, generator=generator, dtype=dtype) * 3
    mask = torch.arange(width) < torch.tensor(lengths, dtype=torch.long)[:, None]
    return Batch(TokenValues((v - gap).masked_fill(~mask, filler), v.masked_fill(~mask, filler)), mask, lengths)


KERNELS = [
    KStep(1),
    KStep(2),
    KStep(3),
    KStep(4, "free"),
    KStep(7, "free"),
    KStep(100),
    KStep(100, "free"),
    Immediate(),
    Geometric(0.0),
    Geometric(0.9),
    Geometric(1.0),
    LagKernel([1, 0.5, 0, -2]),
    LagKernel([1.0]),
    Window(1),
    Window(3),
    ScaledComb(1),
    ScaledComb(3),
    Stepwise([(1, -0.5), (2, 0.25), (5, 2)]),
    Stepwise([(3, 0)]),
]

lengths = st.lists(st.integers(0, 12), min_size=0, max_size=5)
seeds = st.integers(0, 2**31)
ks = st.integers(1, 15)
terminals = st.sampled_from(["anchored", "free"])
