"""Exact moments of any estimator of theory.md (22) on the token MDP, by enumeration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from kvar.analysis.exact.moments import ExactMoments, row_gradients, table_mean
from kvar.analysis.exact.policy import TablePolicy
from kvar.analysis.exact.tree import PrefixTree
from kvar.estimators import Estimator, Evidence, NextTokenReward, Reward, SampledReward
from kvar.returns import LLMR, Thinning, TokenValues
from kvar.rollouts import Rollouts

__all__ = ["enumerated", "table_evidence"]

_MOST = 200_000
"""Batches that are enumerated at most."""
_BLOCK = 4096


class Tables(Protocol):
    """What is enumerated: :class:`kvar.analysis.exact.TokenMDP`."""

    tree: PrefixTree
    prompts: int
    teacher: Tensor
    student: TablePolicy

    @property
    def policy(self) -> Tensor:
        """(S, V), the student's probabilities."""
        ...

    @property
    def probabilities(self) -> Tensor:
        """(R,), of each response, the choice of the prompt included."""
        ...

    def responses(self) -> tuple[Rollouts, TokenValues]:
        """All R of them."""
        ...

    def table_rows(self, rollouts: Rollouts) -> Tensor:
        """(N, T), the row of the student's table that scores each token."""
        ...


def table_evidence(mdp: Tables, reward: Reward | None, behaviour: Tensor | None = None) -> Evidence:
    """What an estimator of one reward needs, for every response, straight from the tables.

    Args:
        mdp: with R responses.
        reward: of the estimator; None for theory.md (4).
        behaviour: (S, V) logits of the policy that draws; None for the student itself.
    """
    rollouts, values = mdp.responses()
    student, teacher = _state_logits(mdp)
    pi = student.softmax(dim=-1)
    chosen = pi.gather(-1, rollouts.tokens[..., None])[..., 0]
    power = (1 - 2 * chosen + (pi**2).sum(dim=-1)).masked_fill(~rollouts.mask, 0.0)
    drawn = chosen.log()  # of the student as it is now
    if behaviour is not None:
        drawn = behaviour.log_softmax(dim=-1)[mdp.table_rows(rollouts), rollouts.tokens]
    rollouts = replace(rollouts, log_probs=drawn.masked_fill(~rollouts.mask, 0.0))
    sampled, expected = {}, {}
    if isinstance(reward, NextTokenReward):
        table = reward.table(teacher, student)
        sampled[reward.name] = table.gather(-1, rollouts.tokens[..., None])[..., 0].masked_fill(~rollouts.mask, 0.0)
        expected[reward.name] = (pi * table).sum(dim=-1).masked_fill(~rollouts.mask, 0.0)
    elif isinstance(reward, SampledReward):
        sampled[reward.name] = reward.sampled(rollouts)
    return Evidence(
        rollouts=rollouts,
        rewards={} if reward is None else {reward.name: reward},
        sampled=sampled,
        expected=expected,
        log_probs=chosen.log().masked_fill(~rollouts.mask, 0.0),
        logit_power=power,
        values=values,
        score_norms=power,  # a table's score is onehot - pi
    )


def enumerated(
    mdp: Tables, estimator: Estimator, *, rollouts_per_prompt: int = 2, behaviour: Tensor | None = None
) -> ExactMoments:
    """Moments of one trajectory's estimate; see :meth:`kvar.analysis.exact.TokenMDP.exact`."""
    evidence = table_evidence(mdp, estimator.reward, behaviour)
    probability = evidence.rollouts.log_probs.sum(dim=1).exp() / mdp.prompts
    second = 0.0
    means = torch.zeros(mdp.prompts, mdp.policy.numel(), dtype=torch.float64)  # E[g | x = m] / M
    for weight, drawn in _kernels(estimator, mdp.tree.horizon):
        for rows, weights, exact, share in _batches(mdp, drawn, evidence, probability, rollouts_per_prompt):
            g = _gradients(mdp, drawn.reward, evidence, rows, weights, exact)
            share = share * weight
            second += float((share * (g**2).sum(dim=1)).sum())
            means.index_add_(0, evidence.rollouts.prompt_index[rows], share[:, None] * g)
    return ExactMoments.of_prompts(means, second, _ideal(mdp, estimator.reward))


def _ideal(mdp: Tables, reward: Reward | None) -> Tensor:
    """(P,): E g of all lags of the reward, sampled on-policy, without a baseline."""
    evidence = table_evidence(mdp, reward)
    weights, _ = Estimator(LLMR(), reward=reward).coefficients(evidence)
    rollouts = evidence.rollouts
    expected = weights * mdp.probabilities[:, None]
    return table_mean(expected, mdp.table_rows(rollouts), rollouts.tokens, mdp.policy).flatten()


def _kernels(estimator: Estimator, horizon: int) -> Iterator[tuple[float, Estimator]]:
    """The estimator under every kernel that may be drawn, with its probability."""
    if not isinstance(estimator.kernel, Thinning):
        yield 1.0, estimator
        return
    if estimator.subtracted is not None:
        raise ValueError(
            f"estimator {estimator.name!r}: a random kernel is not enumerated with a baseline formed from other "
            "rollouts."
        )
    for probability, kernel in estimator.kernel.outcomes(horizon):
        yield probability, replace(estimator, kernel=kernel)


def _batches(
    mdp: Tables, estimator: Estimator, evidence: Evidence, probability: Tensor, count: int
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Numbers of responses, their coefficients, and the probabilities of what these depend on, block by block.

    With a baseline formed from other rollouts, batches of ``count`` responses to one prompt; the first is looked at.
    """
    baseline = estimator.subtracted
    if baseline is None or baseline.scope == "row":
        weights, exact = estimator.coefficients(evidence)
        for rows in torch.arange(len(probability)).split(_BLOCK):
            yield rows, weights[rows], exact[rows], probability[rows]
        return
    if count < 2:
        raise ValueError(f"baseline {baseline.name!r} needs rollouts_per_prompt of 2 or more; got {count}.")
    each = len(probability) // mdp.prompts
    if mdp.prompts * each**count > (_MOST if baseline.scope == "prompt" else _MOST // 40):
        raise ValueError(
            f"estimator {estimator.name!r}: {mdp.prompts} x {each}^{count} batches are too many to enumerate: choose a "
            "smaller vocabulary, horizon or rollouts_per_prompt."
        )
    for prompt in range(mdp.prompts):
        combos = torch.cartesian_prod(*[torch.arange(each) + prompt * each] * count)
        for block in combos.split(_BLOCK if baseline.scope == "prompt" else 1):
            weights, exact = estimator.coefficients(_selected(evidence, block))
            share = (probability[block] * mdp.prompts).prod(dim=1) / mdp.prompts
            yield block[:, 0], weights[::count], exact[::count], share


def _selected(evidence: Evidence, batches: Tensor) -> Evidence:
    """Evidence of batches (C, R) of responses, each batch a prompt of its own."""
    rows = batches.flatten()
    prompt = torch.arange(len(batches)).repeat_interleave(batches.shape[1])
    assert evidence.values is not None and evidence.score_norms is not None
    return replace(
        evidence,
        rollouts=replace(evidence.rollouts[rows], prompt_index=prompt),
        sampled={name: u[rows] for name, u in evidence.sampled.items()},
        expected={name: u[rows] for name, u in evidence.expected.items()},
        log_probs=evidence.log_probs[rows],
        logit_power=evidence.logit_power[rows],
        values=evidence.values[rows],
        score_norms=evidence.score_norms[rows],
    )


def _gradients(
    mdp: Tables, reward: Reward | None, evidence: Evidence, rows: Tensor, weights: Tensor, exact: Tensor
) -> Tensor:
    """(n, P): sum_t [ w_t s_t + k_t pi o (u - ubar) ] of some responses, dense."""
    some = evidence.rollouts[rows]
    states, policy = mdp.table_rows(some), mdp.policy
    g = row_gradients(weights, states, some.tokens, policy)
    if isinstance(reward, NextTokenReward) and bool(exact.any()):
        student, teacher = (logits[rows] for logits in _state_logits(mdp))
        pi, u = student.softmax(dim=-1), reward.table(teacher, student)
        flow = exact[..., None] * pi * (u - (pi * u).sum(dim=-1, keepdim=True))
        out = g.view(len(rows), *policy.shape)
        which = torch.arange(len(rows))[:, None].expand_as(states)
        out.index_put_((which, states), flow, accumulate=True)
    return g


def _state_logits(mdp: Tables) -> tuple[Tensor, Tensor]:
    """(R, H, V) student's and teacher's logits at every state of every response."""
    rollouts, _ = mdp.responses()
    teacher = rollouts.prompt_index[:, None] * int(mdp.tree.offsets[-1]) + mdp.tree.prefix_ids(rollouts.tokens)
    return mdp.student.table.weight.detach()[mdp.table_rows(rollouts)], mdp.teacher[teacher]
