"""Divergences between two next-token distributions, from log-probabilities, summed over the vocabulary.

p is the teacher's distribution, q the student's. Each function takes log p and log q of shape (..., V) and returns
(...); gradients flow to both. All are zero where p = q and non-negative, up to rounding.

A log-probability of -inf rules a token out: 0 log 0 = 0, in values and gradients. KL(p || q) is +inf where p allows a
token that q rules out.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

__all__ = ["generalised_jsd", "jensen_shannon", "kl", "mixture_kl", "reverse_kl", "total_variation"]


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) = sum p (log p - log q), forward KL.

    Examples:
        >>> import torch
        >>> p, q = torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75])
        >>> round(float(kl(p.log(), q.log())), 6)  # log 2 - log 3 / 2
        0.143841
        >>> p, q = torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5])  # 1 log 2 + 0 log 0
        >>> round(float(kl(p.log(), q.log())), 6)
        0.693147
    """
    value = (log_p.exp() * (log_p - log_q)).sum(dim=-1)
    return value if bool(value.detach().isfinite().all()) else _kl_of_masked(log_p, log_q)


def _kl_of_masked(log_p: Tensor, log_q: Tensor) -> Tensor:
    """The same where tokens are ruled out; infinite values carry no gradient."""
    infinite = (log_p > -torch.inf) & (log_q == -torch.inf)
    ratio = (log_p - log_q).masked_fill((log_p == -torch.inf) | infinite, 0.0)
    return (log_p.exp() * ratio).sum(dim=-1).masked_fill(infinite.any(dim=-1), torch.inf)


def reverse_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(q || p)."""
    return kl(log_q, log_p)


def total_variation(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Total variation distance, sum |p - q| / 2, in [0, 1]."""
    return (log_p.exp() - log_q.exp()).abs().sum(dim=-1) / 2


def _log_mixture(log_p: Tensor, log_q: Tensor, beta: float) -> Tensor:
    """Log of beta p + (1 - beta) q."""
    log_p, log_q = log_p + math.log(beta), log_q + math.log1p(-beta)
    neither = (log_p == -torch.inf) & (log_q == -torch.inf)  # logaddexp's gradient is NaN there
    if not bool(neither.any()):
        return torch.logaddexp(log_p, log_q)
    return torch.logaddexp(*(x.masked_fill(neither, 0.0) for x in (log_p, log_q))).masked_fill(neither, -torch.inf)


def mixture_kl(log_a: Tensor, log_p: Tensor, log_q: Tensor, beta: float = 0.5) -> Tensor:
    """KL(a || beta p + (1 - beta) q)."""
    return kl(log_a, _log_mixture(log_p, log_q, beta))


def generalised_jsd(log_p: Tensor, log_q: Tensor, beta: float) -> Tensor:
    """GKD's generalised Jensen-Shannon divergence (Agarwal et al. 2024, arXiv 2306.13649, eq. 1).

        D_beta = beta KL(p || m) + (1 - beta) KL(q || m),    m = beta p + (1 - beta) q

    The formula is 0 at beta = 0 and 1; these return the limits of D_beta / beta and D_beta / (1 - beta), KL(p || q) and
    KL(q || p). D_beta itself shrinks as beta approaches 0 or 1.

    The gradient through log m is -sum_a m_a d(log m_a) = -d(sum_a m_a) = 0, so log m is computed without gradient.

    Args:
        log_p: (..., V) teacher.
        log_q: (..., V) student.
        beta: weight of the teacher, in [0, 1].
    """
    if beta in (0, 1):
        return kl(log_p, log_q) if beta == 0 else kl(log_q, log_p)
    log_m = _log_mixture(log_p.detach(), log_q.detach(), beta)
    return beta * kl(log_p, log_m) + (1 - beta) * kl(log_q, log_m)


jensen_shannon = partial(generalised_jsd, beta=0.5)
