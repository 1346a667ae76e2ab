"""The law of returns under the assumptions of theory.md (15) and (17), from weighted trajectories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kvar.returns import Kernel, lag_sums

__all__ = ["GapLaw", "gap_law", "score_power_by_position", "second_moments"]


@dataclass(frozen=True)
class GapLaw:
    """Pooled moments of gaps and per-position moments of q; float64.

    Attributes:
        mean: (), mu, of the gaps.
        gap_cov: (T,), autocovariance of gaps by lag; at level T0 only lag 0 is not zero.
        q_gap: (T,), covariance of q_t with gap_{t+lag}; zero at level T0 (lag 0 is never used).
        q_mean: (T,), E q_t over the responses that reach t.
        q_var: (T,), Var q_t likewise.
    """

    mean: Tensor
    gap_cov: Tensor
    q_gap: Tensor
    q_mean: Tensor
    q_var: Tensor


def gap_law(q: Tensor, gap: Tensor, mask: Tensor, level: Literal["T0", "T1"], weight: Tensor) -> GapLaw:
    """The law of (q, gap) as weighted trajectories give it.

    Args:
        q: (N, T) float64.
        gap: (N, T) float64.
        mask: (N, T) bool.
        level: "T0" or "T1".
        weight: (N,), how often each trajectory counts: ones, or with a gradient to be taken (``influence``).

    Returns:
        The law, differentiable in ``weight``.
    """
    t = mask.shape[1]
    counted = weight[:, None] * mask
    alive = counted.sum(dim=0)
    safe = torch.where(alive > 0, alive, 1.0)
    q_mean = (counted * q).sum(dim=0) / safe
    centred_q = torch.where(mask, q - q_mean, 0.0)
    mean = (counted * gap).sum() / counted.sum()
    centred = torch.where(mask, gap - mean, 0.0)
    gap_cov, q_gap = [], []
    zero = q.new_zeros(())
    for lag in range(t):
        if lag and level == "T0":
            gap_cov.append(zero)
            q_gap.append(zero)
            continue
        pairs = counted[:, lag:].sum()
        pairs = torch.where(pairs > 0, pairs, 1.0)
        gap_cov.append(torch.einsum("n,nt,nt->", weight, centred[:, : t - lag], centred[:, lag:]) / pairs)
        crossed = torch.einsum("n,nt,nt->", weight, centred_q[:, : t - lag], centred[:, lag:]) / pairs
        q_gap.append(crossed if lag else zero)
    q_var = (weight[:, None] * centred_q**2).sum(dim=0) / safe
    return GapLaw(mean, torch.stack(gap_cov), torch.stack(q_gap), q_mean, q_var)


def second_moments(law: GapLaw, mask: Tensor, kernels: Sequence[Kernel], weight: Tensor) -> Tensor:
    """(E, T) Var G_t + (E G_t)^2, (15), averaged over the lengths of the responses that reach t."""
    t = mask.shape[1]
    lengths = mask.sum(dim=1)
    total, seen = law.q_mean.new_zeros(len(kernels), t), law.q_mean.new_zeros(t)
    steps = torch.arange(t)
    lag = (steps - steps[:, None]).abs()
    for length in lengths.unique().tolist():
        if length == 0:
            continue
        count = weight[lengths == length].sum()
        eye = torch.eye(length, dtype=torch.float64)
        w = lag_sums(eye, torch.ones(length, length), kernels).mT  # w[e, t, i]: gap i in G_t
        w = w.triu(1)  # the own gap is part of q_t
        lags = lag[:length, :length]
        cov, q_gap = law.gap_cov[lags], law.q_gap[lags]
        variance = law.q_var[:length] - 2 * (w * q_gap).sum(dim=2) + ((w @ cov) * w).sum(dim=2)
        mean = law.q_mean[:length] - law.mean * w.sum(dim=2)
        pad = (0, t - length)
        total = total + count * torch.nn.functional.pad(variance + mean**2, pad)
        seen = seen + count * torch.nn.functional.pad(torch.ones(length, dtype=torch.float64), pad)
    return total / torch.where(seen > 0, seen, 1.0)


def score_power_by_position(sq_score: Tensor | float | None, mask: Tensor) -> Tensor:
    """(N, T) |s_t|^2 of every token, zero where a response has ended.

    Args:
        sq_score: (N, T) per token; (N,) per trajectory, the sum over its tokens, spread evenly; or a number for all
            tokens; None for 1.
        mask: (N, T).

    Raises:
        ValueError: another shape.
    """
    n, t = mask.shape
    score = torch.as_tensor(1.0 if sq_score is None else sq_score, dtype=torch.float64).detach().cpu()
    keep = mask.cpu()
    if score.dim() == 1 and score.shape == (n,):
        score = (score / keep.sum(dim=1).clamp(min=1))[:, None].expand(n, t)
    if score.dim() not in (0, 2) or (score.dim() == 2 and tuple(score.shape) != (n, t)):
        raise ValueError(f"sq_score must be a number, ({n},) or {(n, t)}; got shape {tuple(score.shape)}.")
    return torch.where(keep, score, torch.zeros((), dtype=torch.float64))
