"""Whether rollouts are a student's own samples: their log-probabilities beside recomputed ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kvar.returns.precision import at_least_float32
from kvar.rollouts.forward import token_logits
from kvar.rollouts.modes import eval_mode
from kvar.rollouts.types import Rollouts

__all__ = ["OFF_POLICY", "behaviour_numbers", "check_behaviour", "effective_sample_size"]

OFF_POLICY = 0.02
"""Mean difference of log-probabilities a token from which rollouts count as another policy's; rounding makes less."""
MAX_LOGITS = 2**24
UNLIKELY = 6.0
"""Standard deviations between the surprise of tokens and their entropy from which they are no samples."""
REMEDY = "take them as an earlier student's by stale=True (--stale), and name corrections such as 'K=1 ratio'"
TEMPERATURES = tuple(round(0.1 * step, 1) for step in range(1, 21))


def effective_sample_size(log_ratio: Tensor) -> float:
    """(sum w)^2 / sum w^2 of importance weights w = exp(log_ratio), from 1 to their number; Kong 1992.

    Example:
        >>> effective_sample_size(torch.zeros(4)), effective_sample_size(torch.tensor([0.0, -torch.inf]))
        (4.0, 1.0)
    """
    log_ratio = log_ratio.double().flatten()
    return round(float((2 * log_ratio.logsumexp(0) - (2 * log_ratio).logsumexp(0)).exp()), 9)


def behaviour_numbers(rollouts: Rollouts, log_probs: Tensor) -> dict[str, float]:
    """How far the policy that drew rollouts is from the one whose log-probabilities are given.

    Args:
        rollouts: N responses with log-probabilities of their behaviour policy mu.
        log_probs: (N, T), log pi(y_t | x_t).

    Returns:
        ``behaviour_difference``, the mean of |log pi - log mu| over tokens; ``effective_sample_size``, of the N whole
        responses weighted by prod_t pi / mu; ``effective_token_share``, of the tokens weighted by pi / mu, over
        their number. Empty where mu is not known (log-probabilities all zero).
    """
    drawn = rollouts.log_probs[rollouts.mask].double()
    if not bool((drawn != 0).any()):
        return {}
    ratio = torch.where(rollouts.mask, log_probs.double() - rollouts.log_probs.double(), 0.0)
    tokens = ratio[rollouts.mask]
    return {
        "behaviour_difference": float(tokens.abs().mean()),
        "effective_sample_size": effective_sample_size(ratio.sum(dim=1)),
        "effective_token_share": effective_sample_size(tokens) / len(tokens),
    }


@torch.no_grad()
def check_behaviour(
    student: nn.Module, rollouts: Rollouts, *, stale: bool = False, remedy: str = REMEDY
) -> dict[str, float]:
    """Refuse rollouts that another model drew, or this one at another temperature.

    Their log-probabilities are compared with recomputed ones; and the tokens' surprise -log pi(y_t) with its
    expectation, the entropy: over samples of the student the difference is a sum of mean zero. The second needs no
    log-probabilities, and tells samples at a temperature from log-probabilities without it.

    Args:
        student: seq2seq or causal model.
        rollouts: N responses.
        stale: accept them, as those of an earlier student whose log-probabilities are the behaviour policy's.
        remedy: what else to do about such rollouts, for the message.

    Returns:
        :func:`behaviour_numbers`.

    Raises:
        ValueError: names the differences, and the temperature where one explains them.
    """
    device = next(student.parameters()).device
    size = max(1, MAX_LOGITS // max(1, rollouts.tokens.shape[1] * 2**15))
    parts, surprise, variance = [], 0.0, 0.0
    with eval_mode(student):
        for start in range(0, len(rollouts), size):
            some = rollouts[start : start + size].to(device)
            log_pi = at_least_float32(token_logits(student, some)).log_softmax(dim=-1)
            chosen = _chosen(log_pi, some)
            seen = log_pi.masked_fill(log_pi == -torch.inf, 0.0)  # p log p is 0 there
            mean = (log_pi.exp() * seen).sum(dim=-1)
            square = (log_pi.exp() * seen.square()).sum(dim=-1)
            surprise += float((mean - chosen)[some.mask].double().sum())
            variance += float((square - mean.square())[some.mask].double().sum())
            parts.append(chosen.to(rollouts.tokens.device))
    log_probs = torch.cat(parts)
    numbers = behaviour_numbers(rollouts, log_probs)
    if stale and not numbers:
        raise ValueError(
            "stale rollouts need log-probabilities of the policy that drew them, and these have none: record them "
            "while sampling (old_log_probs, rollout_log_probs)."
        )
    if numbers and not stale and numbers["behaviour_difference"] > OFF_POLICY:
        raise ValueError(
            f"the rollouts' log-probabilities differ from this student's by {numbers['behaviour_difference']:.2g} a "
            f"token (more than {OFF_POLICY}): {_explained(student, rollouts)}. Measure the model that drew them, at "
            f"temperature 1 without top-k or top-p; or {remedy} (effective sample size "
            f"{numbers['effective_sample_size']:.3g} of {len(rollouts)} responses)."
        )
    deviations = surprise / math.sqrt(variance) if variance > 0 else 0.0
    if not stale and abs(deviations) > UNLIKELY:
        raise ValueError(
            f"the rollouts are no samples of this student at temperature 1: their tokens are "
            f"{'more' if deviations < 0 else 'less'} probable than such samples, by {abs(deviations):.3g} standard "
            "deviations (greedy decoding, another temperature or another model). Draw them at temperature 1 from it, "
            "or give the log-probabilities that they were drawn with."
        )
    return numbers


def _chosen(log_pi: Tensor, rollouts: Rollouts) -> Tensor:
    tokens = rollouts.tokens.masked_fill(~rollouts.mask, 0)[..., None]
    return log_pi.gather(-1, tokens)[..., 0].masked_fill(~rollouts.mask, 0.0)


def _explained(student: nn.Module, rollouts: Rollouts) -> str:
    """The temperature at which the student's log-probabilities are the rollouts', or that there is none."""
    some = rollouts[:8].to(next(student.parameters()).device)
    drawn = some.log_probs[some.mask]
    with eval_mode(student):
        logits = at_least_float32(token_logits(student, some))
    differences = {
        t: float((_chosen((logits / t).log_softmax(dim=-1), some)[some.mask] - drawn).abs().mean())
        for t in TEMPERATURES
    }
    best = min(differences, key=lambda t: differences[t])
    if best != 1.0 and differences[best] < OFF_POLICY:
        return f"they are its own at temperature {best:g} (difference {differences[best]:.2g})"
    return "another model, or an earlier state of this one, drew them"
