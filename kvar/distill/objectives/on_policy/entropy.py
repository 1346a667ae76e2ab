"""Entropy of the policy and cross-entropy from the uniform distribution, from logits; tokens at -inf are ruled out."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["entropy", "mean_logit", "uniform_cross_entropy"]


def entropy(logits: Tensor) -> Tensor:
    """H(pi) = -sum_a pi(a) log pi(a) in nats, (..., V) -> (...); 0 log 0 = 0 for tokens at -inf."""
    log_p = logits.log_softmax(dim=-1)
    value = -(log_p.exp() * log_p).sum(dim=-1)
    if bool(value.detach().isfinite().all()):
        return value
    return -(log_p.exp() * log_p.masked_fill(log_p == -torch.inf, 0.0)).sum(dim=-1)


def uniform_cross_entropy(logits: Tensor) -> Tensor:
    """Cross-entropy from the uniform distribution, mean_a -log pi(a), (..., V) -> (...).

    The released recipes of LMReward and KETCHUP call this "entropy". It is not: it is least, log V, where pi is
    uniform, and grows without bound as any token's probability nears 0. Tokens at -inf are outside the action set, and
    "uniform" means over the others.
    """
    return logits.logsumexp(dim=-1) - mean_logit(logits)


def mean_logit(logits: Tensor) -> Tensor:
    """The mean over the tokens that are not at -inf, (..., V) -> (...)."""
    mean = logits.mean(dim=-1)
    if not bool((mean.detach() == -torch.inf).any()):
        return mean
    outside = logits == -torch.inf
    return logits.masked_fill(outside, 0.0).sum(dim=-1) / (~outside).sum(dim=-1)
