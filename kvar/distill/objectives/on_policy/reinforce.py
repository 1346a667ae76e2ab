"""REINFORCE with the released recipe's weights: what KETCHUP and LLMR share.

    w_it = clip( rho_it A_it )

with A the returns less a baseline, scaled; rho A is detached and clipped after multiplying, as in the released recipe
(Fan et al. 2026, arXiv 2504.19024). The loss is :mod:`kvar.distill.objectives.on_policy.policy_gradient`'s.
"""

from __future__ import annotations

from torch import Tensor

from kvar.distill.objectives.base import Loss
from kvar.distill.objectives.batch import Settings
from kvar.distill.objectives.on_policy.policy_gradient import surrogate
from kvar.distill.objectives.passes import Passes
from kvar.rollouts import Rollouts

__all__ = ["advantage_weights", "reinforce"]


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
    rollouts, log_pi = passes.responses("student"), passes.log_probs("student")
    weights = advantage_weights(passes.batch.advantages[name].to(log_pi), log_pi, rollouts, settings)
    return surrogate(passes, settings, name, weights)
