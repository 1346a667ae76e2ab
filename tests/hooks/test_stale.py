"""Rollouts that an earlier student drew: biases and sample sizes as measured, against enumeration of the token MDP."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kvar.analysis import bias, signal, trace_covariance
from kvar.analysis.exact import TokenMDP
from kvar.estimators import parse_estimators
from kvar.hooks.measure import measure_gradients
from kvar.hooks.measurement_settings import MeasurementSettings
from kvar.rollouts import Policy, check_behaviour

NAMES = ("kl K=1", "kl K=1 ratio", "kl K=1 truncated(1)", "kl K=1 sequence-ratio")
N = 4000


@pytest.fixture(scope="module")
def case() -> tuple:
    """An MDP whose student took a few steps since its responses were drawn; the old logits, and the responses."""
    mdp = TokenMDP(3, 3, seed=0)
    table = mdp.student.table.weight
    old = table.detach().clone()
    rollouts, _ = mdp.sample(N, seed=1)
    with torch.no_grad():
        for _ in range(3):
            table += 0.5 * mdp.exact(parse_estimators("kl K=1")[0]).mean.view_as(table)
    drawn = old.log_softmax(dim=1)[mdp.student.rows(rollouts.prompt_index, rollouts.tokens), rollouts.tokens]
    rollouts = replace(rollouts, log_probs=drawn.masked_fill(~rollouts.mask, 0.0), policy=Policy(ends=(2,)))
    return mdp, old, rollouts


@pytest.mark.filterwarnings("ignore:rollouts.log_probs differ")
def test_the_sequence_ratio_is_unbiased_on_stale_rollouts_and_nothing_else_is(case) -> None:
    mdp, old, rollouts = case
    estimators = tuple(parse_estimators(NAMES))
    settings = MeasurementSettings(estimators, rollouts_per_prompt=1)
    m = measure_gradients(mdp.student, rollouts, settings, teacher=mdp.teacher_model, policy=rollouts.policy)
    truth = mdp.exact(estimators[0]).mean  # on-policy, by enumeration
    exact = [mdp.exact(e, behaviour=old) for e in estimators]
    off = bias(m.moments, reference=NAMES[3])
    lengths = signal(m.moments)
    for number, moments in enumerate(exact):
        expected = float((moments.mean - truth).square().sum())
        assert off.low[number] <= expected + 1e-12 and expected - 1e-12 <= off.high[number]
        assert lengths.low[number] <= float(moments.mean.square().sum()) <= lengths.high[number]
        assert trace_covariance(m.moments).value[number] == pytest.approx(float(moments.trace), rel=0.1)
    assert off.low[0] > 0 and float((exact[3].mean - truth).norm()) < 1e-12
    assert float((exact[0].mean - truth).norm()) > 1.5 * float((exact[1].mean - truth).norm())


def test_the_effective_sample_size_is_that_of_the_exact_weights(case) -> None:
    """(sum w)^2 / sum w^2 of N draws tends to N / E_mu[w^2], by enumeration."""
    mdp, old, rollouts = case
    numbers = check_behaviour(mdp.student, rollouts, stale=True)
    every, _ = mdp.responses()
    rows = mdp.student.rows(every.prompt_index, every.tokens)

    def log_prob(logits: torch.Tensor) -> torch.Tensor:
        return logits.log_softmax(dim=1)[rows, every.tokens].masked_fill(~every.mask, 0.0).sum(dim=1)

    mu, pi = log_prob(old), log_prob(mdp.student.table.weight.detach())
    assert numbers["effective_sample_size"] == pytest.approx(N / float((2 * pi - mu).exp().sum()), rel=0.02)
    with pytest.raises(ValueError, match="an earlier state of this one, drew them"):
        check_behaviour(mdp.student, rollouts)
