"""verl's proxy of the gradient's power from probabilities and advantages."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["VarianceProxy", "w_proxy"]


@dataclass(frozen=True)
class VarianceProxy:
    """What verl logs as ``variance_proxy/*``.

    Attributes:
        power: mean of A_i^2 W_i, in place of E|g|^2; its "total power", proxy 2.
        signal: |gbar|^2 of the step, its proxy 1; None where no gradient norm was given.
        noise: max(0, (power - signal) / (N - 1)), in place of the variance of the step's mean, its proxy 3; None
            likewise.
        squared_advantage: mean of A_i^2.
        score_power: mean of W_i.
    """

    power: float
    signal: float | None
    noise: float | None
    squared_advantage: float
    score_power: float


def w_proxy(
    advantages: Tensor,
    logit_power: Tensor,
    mask: Tensor,
    gradient_norm: float | None = None,
    ratios: Tensor | None = None,
) -> VarianceProxy:
    """E|g|^2 by mean_i A_i^2 W_i, with W_i = sum_t (1 - 2 pi(y_t) + sum_a pi(a)^2), free after a forward pass.

    W_i is the squared norm of the logits' own score, summed over the response; A_i is the mean of the advantages over
    its tokens, A_i^2 times the mean ratio squared off-policy. The formula is exact for a student whose parameters are
    the logits of every position, with one advantage a response. It leaves out the network between logits and
    parameters, products of scores at different positions, and the advantages' spread within a response. Of an exact sum
    over the vocabulary it sees nothing. ``power`` is in units of a sum over tokens and ``signal`` in those of the loss
    that was differentiated: their difference means something only where the loss is a mean over responses of sums over
    tokens. Source: verl, ``compute_variance_proxy_metrics`` and docs/algo/otb.md (arXiv 2602.07078).

    Args:
        advantages: (N, T), the weights of the scores.
        logit_power: (N, T), 1 - 2 pi(y_t) + sum_a pi(a)^2 (``kvar.estimators.Evidence.logit_power``).
        mask: (N, T) bool, true on response tokens.
        gradient_norm: |gbar| of the step.
        ratios: (N, T) importance weights that the loss was multiplied by; None on-policy.

    Raises:
        ValueError: shapes that differ, a response without a token, fewer than two responses where a gradient norm is
            given, or a number that is not finite.

    Example:
        >>> import torch
        >>> mask = torch.tensor([[True, True], [True, False]])
        >>> proxy = w_proxy(torch.tensor([[1.0, 3.0], [2.0, 0.0]]), torch.full((2, 2), 0.5), mask, gradient_norm=1.0)
        >>> proxy.power, proxy.signal, proxy.noise
        (3.0, 1.0, 2.0)
    """
    given = {"advantages": advantages, "logit_power": logit_power} | ({} if ratios is None else {"ratios": ratios})
    keep = mask.bool()
    for name, value in given.items():
        if value.shape != keep.shape or keep.dim() != 2:
            raise ValueError(f"{name} and mask must both be (N, T); got {tuple(value.shape)} and {tuple(mask.shape)}.")
        if not bool(value[keep].isfinite().all()):
            raise ValueError(f"{name} is not finite on a response token: leave that response out.")
    lengths = keep.sum(dim=1)
    if not len(lengths) or not bool(lengths.all()):
        raise ValueError("mask must have a token in every response: leave empty responses out.")
    if gradient_norm is not None and len(lengths) < 2:
        raise ValueError("the noise of a mean needs at least two responses; got 1. Leave gradient_norm out.")

    def mean(value: Tensor) -> Tensor:
        return value.double().masked_fill(~keep, 0.0).sum(dim=1) / lengths

    squares = mean(advantages).square()
    scores = (mean(logit_power) * lengths).clamp(min=0.0)
    factor = 1.0 if ratios is None else mean(ratios).square()
    power = float((factor * squares * scores).mean())
    signal = None if gradient_norm is None else gradient_norm**2
    noise = None if signal is None else max(0.0, (power - signal) / (len(lengths) - 1))
    return VarianceProxy(power, signal, noise, float(squares.mean()), float(scores.mean()))
