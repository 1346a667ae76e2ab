"""Sums of per-token rewards under lag kernels, theory.md eq. (4'): the computation behind every return."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch

import torch
from torch import Tensor
from torch.nn.functional import pad

from kvar.returns.kernels import Geometric, Immediate, Kernel, KStep, LagKernel
from kvar.returns.masks import check_mask
from kvar.returns.precision import at_least_float32
from kvar.returns.thinning import Thinning

__all__ = ["lag_sums"]


def lag_sums(rewards: Tensor, mask: Tensor, kernels: Sequence[Kernel]) -> Tensor:
    """Sum each token's own and later rewards under every kernel, G_t = sum_{j>=0} w_j u_{t+j}; theory.md eq. (4').

    No loop over tokens: a K-step kernel is a reversed cumulative sum over a (T / K, K) view, a geometric one a scan
    of log2(T) shifts, a :class:`LagKernel` one shift for each non-zero weight, and any other callable with a
    kernel's signature a (N, T, T) product with the weights it gives.

    Args:
        rewards: (N, T), any per-token reward u_t; what padding holds does not matter.
        mask: (N, T), true on response tokens; right padding only.
        kernels: E kernels.

    Returns:
        (E, N, T) in the rewards' dtype (integers: the default one), zero where masked. Row by row it equals the sums
        of the unpadded row. Differentiable in the rewards.

    Raises:
        ValueError: rewards and mask of different shapes, or a mask with a hole.
        TypeError: an entry of ``kernels`` is not a kernel.

    Examples:
        >>> import torch
        >>> from kvar.returns import Immediate, KStep
        >>> rewards = torch.tensor([[1.0, 10.0, 100.0, 1000.0]])
        >>> kernels = [KStep(1), KStep(2), KStep(2, terminal="free"), Immediate()]
        >>> lag_sums(rewards, torch.ones(1, 4), kernels)[:, 0].tolist()  # doctest: +NORMALIZE_WHITESPACE
        [[1111.0, 1110.0, 1100.0, 1000.0], [1101.0, 1010.0, 1100.0, 1000.0],
         [101.0, 1010.0, 100.0, 1000.0], [1.0, 10.0, 100.0, 1000.0]]
    """
    if rewards.shape != mask.shape:
        raise ValueError(
            f"rewards must have the mask's shape (N, T) = {tuple(mask.shape)}; got {tuple(rewards.shape)}."
        )
    _check_kernels(kernels)
    mask = check_mask(mask)
    if not rewards.is_floating_point():
        rewards = rewards.to(torch.get_default_dtype())
    work = at_least_float32(rewards).masked_fill(~mask, 0.0)
    steps = torch.arange(mask.shape[1], device=mask.device)
    remaining = mask.sum(dim=1, keepdim=True) - 1 - steps  # tokens that follow; negative on padding
    if not len(kernels):
        return work.new_zeros((0, *mask.shape), dtype=rewards.dtype)
    return torch.stack([_sums(kernel, work, remaining) for kernel in kernels]).to(rewards.dtype)


def _check_kernels(kernels: object) -> None:
    if isinstance(kernels, str) or not isinstance(kernels, Sequence):
        raise TypeError(f"kernels must be a list of kernels, for instance [KStep(1), KStep(4)]; got {kernels!r}.")
    for i, kernel in enumerate(kernels):
        if not callable(kernel) or isinstance(kernel, type):
            raise TypeError(f"kernels[{i}] must be a kernel, for instance KStep(4); got {kernel!r}. See parse_kernel.")


@singledispatch
def _sums(kernel: Kernel, rewards: Tensor, remaining: Tensor) -> Tensor:
    """(N, T) sums under any kernel, from its definition; rewards are zero on padding."""
    steps = torch.arange(rewards.shape[1], device=rewards.device)
    lags = steps - steps[:, None]  # lags[t, i] = i - t
    weights = kernel(lags[None], remaining[:, :, None])
    return (weights.to(rewards.dtype) @ rewards[:, :, None]).squeeze(-1)


@_sums.register
def _immediate(kernel: Immediate, rewards: Tensor, remaining: Tensor) -> Tensor:
    return rewards


@_sums.register
def _comb(kernel: KStep, rewards: Tensor, remaining: Tensor) -> Tensor:
    n, length = rewards.shape
    if not rewards.numel():
        return rewards
    k = min(kernel.k, length)
    blocks = pad(rewards, (0, -length % k)).reshape(n, -1, k)
    sums = blocks.flip(1).cumsum(1).flip(1).reshape(n, -1)[:, :length]
    if kernel.terminal == "free" or kernel.k == 1:
        return sums
    last = rewards.gather(1, remaining[:, :1].clamp(min=0))  # (N, 1): seen from t = 0 the last token is `remaining` off
    missed = (remaining > 0) & (remaining % kernel.k != 0)
    return sums + torch.where(missed, last, torch.zeros_like(last))


@_sums.register
def _scan(kernel: Geometric, rewards: Tensor, remaining: Tensor) -> Tensor:
    sums, reach = rewards, 1  # sums: the first `reach` lags
    while reach < rewards.shape[1]:
        sums = sums + kernel.lam**reach * pad(sums[:, reach:], (0, reach))
        reach *= 2
    return sums


@_sums.register
def _shifts(kernel: LagKernel, rewards: Tensor, remaining: Tensor) -> Tensor:
    sums = rewards
    for lag, weight in enumerate(kernel.weights[: rewards.shape[1]]):
        if lag and weight:
            sums = sums + weight * pad(rewards[:, lag:], (0, lag))
    return sums


@_sums.register
def _thinned(kernel: Thinning, rewards: Tensor, remaining: Tensor) -> Tensor:
    weights = kernel.draws(len(rewards), rewards.shape[1], rewards.device).to(rewards.dtype)
    sums = rewards
    for lag in range(1, rewards.shape[1]):
        sums = sums + weights[:, lag : lag + 1] * pad(rewards[:, lag:], (0, lag))
    return sums
