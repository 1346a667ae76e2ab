"""KETCHUP and LLMR: REINFORCE on the student's own responses with K-step returns from the teacher's logits.

    loss = - sum_{i,t} clip( rho_it A_it ) log pi(y_it | s_it) / number of tokens

with A the return G^(K) of theory.md (3), less a baseline; rho = pi / behaviour, detached and clipped after
multiplying as in the released recipe (Fan et al. 2026, arXiv 2504.19024). K = 1 is LLMR (arXiv 2409.12500).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from kvar.distill.objectives.base import Batch, Loss, Settings, objective, token_mean
from kvar.returns import LLMR, parse_kernel, returns
from kvar.rollouts import Rollouts, log_probs, score

if TYPE_CHECKING:
    from kvar.returns import Kernel

__all__ = ["advantage_weights", "ketchup", "llmr"]


def advantage_weights(advantages: Tensor, log_pi: Tensor, rollouts: Rollouts, settings: Settings) -> Tensor:
    """The detached factor of log pi: clip(rho * scale * A).

    Args:
        advantages: (N, T) returns less baseline.
        log_pi: (N, T) log-probabilities under the policy being trained.
        rollouts: gives the behaviour's log-probabilities.
        settings: ``importance_weight``, ``importance_clip``, ``return_scale``, ``return_clip``.

    Returns:
        (N, T), zero where masked, without gradient.
    """
    weights = advantages * settings.return_scale
    if settings.importance_weight:
        rho = (log_pi.detach() - rollouts.log_probs).exp()
        if settings.importance_clip is not None:
            rho = rho.clamp(max=settings.importance_clip)
        weights = weights * rho
    if settings.return_clip is not None:
        weights = weights.clamp(-settings.return_clip, settings.return_clip)
    return weights.detach().masked_fill(~rollouts.mask, 0.0)


def _reinforce(student: nn.Module, teacher: nn.Module | None, batch: Batch, settings: Settings, kernel: Kernel) -> Loss:
    rollouts = batch.samples
    assert teacher is not None and rollouts is not None
    values = score(teacher, rollouts, centre=settings.centre, value=settings.value, vocabulary=batch.vocabulary)
    advantages = returns(
        values, rollouts.mask, [kernel], baseline=settings.baseline, prompt_index=rollouts.prompt_index
    )[0]
    log_pi = log_probs(student, rollouts, vocabulary=batch.vocabulary)
    weights = advantage_weights(advantages, log_pi, rollouts, settings)
    with torch.no_grad():
        lengths = rollouts.lengths.float()
        logs = {
            "total_gap": float(values.gap.sum(dim=1).mean()),
            "gap_per_token": float(token_mean(values.gap, rollouts.mask)),
            "response_length": float(lengths.mean()),
            "finished": float(rollouts.finished.float().mean()),
            "log_prob_per_token": float(token_mean(log_pi, rollouts.mask)),
        }
    return Loss(token_mean(-weights * log_pi, rollouts.mask), logs, values)


@objective("ketchup", samples=True, teacher=True)
def ketchup(student: nn.Module, teacher: nn.Module | None, batch: Batch, settings: Settings) -> Loss:
    """REINFORCE with the kernel ``settings.kernel`` on ``batch.samples``; see the module's formula."""
    return _reinforce(student, teacher, batch, settings, parse_kernel(settings.kernel))


@objective("llmr", samples=True, teacher=True)
def llmr(student: nn.Module, teacher: nn.Module | None, batch: Batch, settings: Settings) -> Loss:
    """The K = 1 case of :func:`ketchup`, whatever ``settings.kernel`` says."""
    return _reinforce(student, teacher, batch, settings, LLMR())
