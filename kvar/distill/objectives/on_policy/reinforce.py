"""REINFORCE on the student's own responses: what KETCHUP and LLMR share.

    loss = - sum_{i,t} clip( rho_it A_it ) log pi(y_it | s_it), normalised
           - entropy_weight sum_{i,t} H( pi(. | s_it) ) + uniform_weight sum_{i,t} CE( uniform, pi(. | s_it) )

with A the returns less a baseline (:mod:`kvar.distill.objectives.on_policy.advantages`), scaled; rho A is detached and
clipped after multiplying, as in the released recipe (Fan et al. 2026, arXiv 2504.19024).
"""

from __future__ import annotations

import torch
from torch import Tensor

from kvar.distill.objectives.base import Loss, Term
from kvar.distill.objectives.batch import Settings
from kvar.distill.objectives.on_policy.entropy import entropy, uniform_cross_entropy
from kvar.distill.objectives.passes import Passes
from kvar.rollouts import Rollouts
from kvar.rollouts.forward import chosen_log_probs

__all__ = ["advantage_weights", "reinforce"]

BLOCK_ELEMENTS = 2**24
ENTROPY_STRIDE = 4


def advantage_weights(advantages: Tensor, log_pi: Tensor, rollouts: Rollouts, settings: Settings) -> Tensor:
    """The detached factor of log pi: clip(rho * scale * A).

    rho is pi / b with b the probability under the behaviour policy that sampled ("behaviour"), pi itself ("policy":
    b = 1, the released KETCHUP recipe's), or 1 ("none").

    Args:
        advantages: (N, T) returns less baseline.
        log_pi: (N, T) log-probabilities under the policy being trained.
        rollouts: gives the behaviour's log-probabilities.
        settings: ``importance_weight``, ``importance_clip``, ``return_scale``, ``return_clip``.

    Returns:
        (N, T), zero where masked, without gradient.
    """
    weights = advantages * settings.return_scale
    if settings.importance_weight != "none":
        ratio = log_pi.detach()
        if settings.importance_weight == "behaviour":
            ratio = ratio - rollouts.log_probs
        rho = ratio.exp()
        if settings.importance_clip is not None:
            rho = rho.clamp(max=settings.importance_clip)
        weights = weights * rho
    if settings.return_clip is not None:
        weights = weights.clamp(-settings.return_clip, settings.return_clip)
    return weights.detach().masked_fill(~rollouts.mask, 0.0)


def reinforce(passes: Passes, settings: Settings, name: str) -> Loss:
    """The loss of objective ``name``, whose advantages the batch holds."""
    rollouts, values = passes.responses("student"), passes.batch.values
    logits = passes.student_logits("student")
    log_pi = chosen_log_probs(logits, rollouts)
    advantages = passes.batch.advantages[name]
    weights = advantage_weights(advantages, log_pi, rollouts, settings)
    per_token = -weights * log_pi
    if settings.entropy_weight:
        per_token = per_token - settings.entropy_weight * entropy(logits)
    if settings.uniform_weight:
        per_token = per_token + settings.uniform_weight * uniform_cross_entropy(logits)
    mask = rollouts.mask
    rows = mask.any(dim=1)  # a row without a token is a repeat, see kvar.distill.step.evened
    with torch.no_grad():
        logs = {
            "response_length": float(rollouts.lengths[rows].double().mean()),
            "finished": float(rollouts.finished[rows].double().mean()),
            "log_prob_per_token": float(log_pi[mask].mean()),
            "entropy": _mean_entropy(logits.detach(), mask),
            "advantage_std": float(advantages[mask].std(correction=0)) if bool(rows.any()) else 0.0,
        }
        if values is not None:
            gaps = values.gap.sum(dim=1)
            logs["return"] = float((values.v[:, 0] - gaps)[rows].mean())
            logs["total_gap"] = float(gaps[rows].mean())
            logs["gap_per_token"] = float(values.gap[mask].mean())
    return Loss((Term(per_token, "student"),), logs)


def _mean_entropy(logits: Tensor, mask: Tensor) -> float:
    """Mean entropy over every fourth unmasked token: for the log, where a pass over all logits would be felt."""
    rows, positions = (index[::ENTROPY_STRIDE] for index in mask.nonzero(as_tuple=True))
    size = max(1, BLOCK_ELEMENTS // logits.shape[-1])
    total = 0.0
    for r, p in zip(rows.split(size), positions.split(size), strict=True):
        total += float(entropy(logits[r, p]).sum())
    return total / max(len(rows), 1)
