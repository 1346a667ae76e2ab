"""KETCHUP and LLMR: REINFORCE on the student's own responses with K-step returns from the teacher's logits.

    loss = - sum_{i,t} clip( rho_it A_it ) log pi(y_it | s_it) / number of tokens

with A the return G^(K) of theory.md (3), less a baseline; rho = pi / behaviour, detached and clipped after
multiplying as in the released recipe (Fan et al. 2026, arXiv 2504.19024). K = 1 is LLMR (arXiv 2409.12500).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from kvar.distill.objectives.base import Batch, Loss, objective, token_mean
from kvar.returns import LLMR, parse_kernel, returns
from kvar.rollouts import Rollouts, log_probs, score

if TYPE_CHECKING:
    from kvar.distill.config import DistillationConfig
    from kvar.returns import Kernel

__all__ = ["advantage_weights", "ketchup", "llmr"]


def advantage_weights(advantages: Tensor, log_pi: Tensor, rollouts: Rollouts, config: DistillationConfig) -> Tensor:
    """The detached factor of log pi: clip(rho * scale * A).

    Args:
        advantages: (N, T) returns less baseline.
        log_pi: (N, T) log-probabilities under the policy being trained.
        rollouts: gives the behaviour's log-probabilities.
        config: ``importance_weight``, ``importance_clip``, ``return_scale``, ``return_clip``.

    Returns:
        (N, T), zero where masked, without gradient.
    """
    weights = advantages * config.return_scale
    if config.importance_weight:
        rho = (log_pi.detach() - rollouts.log_probs).exp()
        if config.importance_clip is not None:
            rho = rho.clamp(max=config.importance_clip)
        weights = weights * rho
    if config.return_clip is not None:
        weights = weights.clamp(-config.return_clip, config.return_clip)
    return weights.detach().masked_fill(~rollouts.mask, 0.0)


def _reinforce(
    student: nn.Module, teacher: nn.Module | None, batch: Batch, config: DistillationConfig, kernel: Kernel
) -> Loss:
    rollouts = batch.samples
    assert teacher is not None and rollouts is not None
    values = score(teacher, rollouts, centre=config.centre, value=config.value, vocabulary=batch.vocabulary)
    advantages = returns(values, rollouts.mask, [kernel], baseline=config.baseline, prompt_index=rollouts.prompt_index)[
        0
    ]
    log_pi = log_probs(student, rollouts, vocabulary=batch.vocabulary)
    weights = advantage_weights(advantages, log_pi, rollouts, config)
    with torch.no_grad():
        lengths = rollouts.lengths.float()
        logs = {
            "total_gap": float(values.gap.sum(dim=1).mean()),
            "gap_per_token": float(token_mean(values.gap, rollouts.mask)),
            "response_length": float(lengths.mean()),
            "finished": float(rollouts.finished.float().mean()),
            "log_prob_per_token": float(token_mean(log_pi, rollouts.mask)),
        }
    return Loss(token_mean(-weights * log_pi, rollouts.mask), logs)


@objective("ketchup", samples=True, teacher=True)
def ketchup(student: nn.Module, teacher: nn.Module | None, batch: Batch, config: DistillationConfig) -> Loss:
    """REINFORCE with the kernel ``config.kernel`` on ``batch.samples``; see the module's formula."""
    return _reinforce(student, teacher, batch, config, parse_kernel(config.kernel))


@objective("llmr", samples=True, teacher=True)
def llmr(student: nn.Module, teacher: nn.Module | None, batch: Batch, config: DistillationConfig) -> Loss:
    """The K = 1 case of :func:`ketchup`, whatever ``config.kernel`` says."""
    return _reinforce(student, teacher, batch, config, LLMR())
