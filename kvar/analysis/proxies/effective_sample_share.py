"""The effective sample size of importance weights, as a share of the samples."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from kvar.rollouts import effective_sample_size

__all__ = ["effective_sample_share"]


def effective_sample_share(log_ratio: Tensor, mask: Tensor, level: Literal["sequence", "token"] = "sequence") -> float:
    """(sum w)^2 / (n sum w^2), the share of the samples that are left after weighting them by w = pi / mu.

    :func:`kvar.rollouts.effective_sample_size` is the number of them.

    It is 1 where all weights are equal, on-policy above all, and 1/n where one sample has all the weight. It depends on
    the ratios alone: of the returns, of scores and so of the variance of an on-policy gradient it says nothing. Its
    inverse, 1 + Var(w) / (E w)^2, is about the factor by which weighting raises the variance of a mean whose terms are
    independent of the weights. Source: Kong 1992; ``rollout_is_eff_sample_size`` of verl is the same formula.

    Args:
        log_ratio: (N, T), log pi(y_t | x_t) - log mu(y_t | x_t), mu the policy that drew the tokens
            (:meth:`kvar.estimators.Evidence.log_ratio`).
        mask: (N, T) bool, true on response tokens.
        level: "sequence", one weight a response, the product over its tokens; or "token", one weight a token.

    Returns:
        A share above 0 and at most 1.

    Raises:
        ValueError: shapes that differ, no token, a ratio that is not finite, or another level.

    Example:
        >>> ratios = torch.tensor([[3.0, 1.0], [2.0, 9.0]])
        >>> mask = torch.tensor([[True, True], [True, False]])
        >>> [round(effective_sample_share(ratios.log(), mask, level), 3) for level in ("sequence", "token")]
        [0.962, 0.857]
    """
    if log_ratio.shape != mask.shape or log_ratio.dim() != 2:
        raise ValueError(
            f"log_ratio and mask must both be (N, T); got {tuple(log_ratio.shape)} and {tuple(mask.shape)}."
        )
    if level not in ("sequence", "token"):
        raise ValueError(f"level must be 'sequence' or 'token'; got {level!r}.")
    mask = mask.bool()
    if not bool(mask.any()):
        raise ValueError("mask has no response token: sample at least one response.")
    if not bool(log_ratio[mask].isfinite().all()):
        raise ValueError("log_ratio is not finite on a response token: leave that response out.")
    inside = torch.where(mask, log_ratio.double(), 0.0)
    logs = inside.sum(dim=1)[mask.any(dim=1)] if level == "sequence" else inside[mask]
    return effective_sample_size(logs) / len(logs)
