"""The policy gradient of any estimator of ``kvar.estimators`` on the student's own responses.

    loss = - sum_{i,t} [ w_it log pi(y_it | x_it) + k_it sum_a u(x_it, a) pi(a | x_it) ], normalised
           - entropy_weight sum_{i,t} H( pi(. | x_it) ) + uniform_weight sum_{i,t} CE( uniform, pi(. | x_it) )

with w, k and u held fixed: w is the weight of a score, k that of an exact sum (``Estimator.coefficients``, formed of
the whole step by :mod:`kvar.distill.step.coefficients`), and u the reward of every next token. Without the last two
terms minus the loss's gradient is the estimator, theory.md (22), summed over responses and normalised; with
``normalisation: sequence-mean`` it is the mean over trajectories that ``kvar.gradients`` measures.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kvar.distill.objectives.base import Loss, Term, objective
from kvar.distill.objectives.batch import Settings
from kvar.distill.objectives.on_policy.entropy import entropy, uniform_cross_entropy
from kvar.distill.objectives.passes import Passes
from kvar.estimators import Estimator, NextTokenReward, Reward, parse_estimators
from kvar.estimators.adaptive import with_value

__all__ = ["named_estimator", "policy_gradient", "surrogate"]

BLOCK_ELEMENTS = 2**24
ENTROPY_STRIDE = 4


def named_estimator(settings: Settings) -> Estimator:
    """The estimator that ``settings.estimator`` names; its gap has the V of ``settings.value``.

    Raises:
        ValueError: none, several, or a name that cannot be read.
    """
    if not settings.estimator:
        raise ValueError("objective policy-gradient needs estimator, for instance estimator: 'kl immediate exact'.")
    named = parse_estimators(settings.estimator)
    if len(named) > 1:
        raise ValueError(f"estimator {settings.estimator!r} names {len(named)} estimators; training takes one.")
    return with_value(named[0], settings.value)


@objective("policy-gradient", sources=lambda settings, on_policy: ("student",), teacher=True, estimator=named_estimator)
def policy_gradient(passes: Passes, settings: Settings) -> Loss:
    """The estimator ``settings.estimator`` on the student's responses."""
    reward = named_estimator(settings).reward
    weights = passes.batch.advantages["policy-gradient"]
    return surrogate(
        passes, settings, "policy-gradient", weights, reward if isinstance(reward, NextTokenReward) else None
    )


def surrogate(passes: Passes, settings: Settings, name: str, weights: Tensor, reward: Reward | None = None) -> Loss:
    """The loss of a policy-gradient objective.

    Args:
        passes: of the micro-batch.
        settings: of the run.
        name: of the objective, whose exact coefficients and rewards the batch holds.
        weights: (N, T), w; a constant.
        reward: u, for the exact sums where the batch holds their coefficients.
    """
    rollouts, values, rewards = passes.responses("student"), passes.batch.values, passes.batch.rewards.get(name)
    logits, log_pi = passes.student_logits("student"), passes.log_probs("student")
    per_token = -weights.to(log_pi) * log_pi
    if isinstance(reward, NextTokenReward) and name in passes.batch.exact:
        expected = passes.divergence("student", _minus_expected(reward))
        per_token = per_token + passes.batch.exact[name].to(log_pi) * expected
        rewards = -expected.detach() if rewards is None else rewards
    if settings.entropy_weight:
        per_token = per_token - settings.entropy_weight * entropy(logits)
    if settings.uniform_weight:
        per_token = per_token + settings.uniform_weight * uniform_cross_entropy(logits)
    mask = rollouts.mask
    rows = mask.any(dim=1)  # a row without a token is a repeat, see kvar.distill.step.evened
    with torch.no_grad():
        advantages = passes.batch.advantages[name].to(log_pi)
        logs = {
            "response_length": float(rollouts.lengths[rows].double().mean()),
            "finished": float(rollouts.finished[rows].double().mean()),
            "log_prob_per_token": float(log_pi[mask].mean()),
            "entropy": _mean_entropy(logits.detach(), mask),
            "advantage_std": float(advantages[mask].std(correction=0)) if bool(rows.any()) else 0.0,
        }
        if rewards is not None:
            logs["reward"] = float(rewards.to(log_pi).masked_fill(~mask, 0.0).sum(dim=1)[rows].mean())
        if values is not None:
            gaps = values.gap.sum(dim=1)
            logs["return"] = float((values.v[:, 0] - gaps)[rows].mean())
            logs["total_gap"] = float(gaps[rows].mean())
            logs["gap_per_token"] = float(values.gap[mask].mean())
    return Loss((Term(per_token, "student"),), logs)


def _minus_expected(reward: NextTokenReward) -> Callable[[Tensor, Tensor], Tensor]:
    """Log p, log pi -> -sum_a u(a) pi(a), whose gradient is -sum_a u(a) grad pi(a): u is held fixed."""

    def minus_expected(log_p: Tensor, log_pi: Tensor) -> Tensor:
        weighted = reward.weighted(log_p, log_pi.detach())
        value = -weighted.sum(dim=-1)
        if not bool(value.isfinite().all()):  # at padding, or refused where the divergence is taken
            weighted = weighted.masked_fill(~value.isfinite()[..., None], 0.0)
        slope = -(weighted * log_pi.masked_fill(log_pi == -torch.inf, 0.0)).sum(dim=-1)
        return value + (slope - slope.detach())

    return minus_expected


def _mean_entropy(logits: Tensor, mask: Tensor) -> float:
    """Mean entropy over every fourth unmasked token: for the log, where a pass over all logits would be felt."""
    rows, positions = (index[::ENTROPY_STRIDE] for index in mask.nonzero(as_tuple=True))
    size = max(1, BLOCK_ELEMENTS // logits.shape[-1])
    total = 0.0
    for r, p in zip(rows.split(size), positions.split(size), strict=True):
        total += float(entropy(logits[r, p]).sum())
    return total / max(len(rows), 1)
