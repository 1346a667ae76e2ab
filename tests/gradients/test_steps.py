"""Moments of whole steps are those of the means of per-trajectory gradients."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from kvar.analysis import efficiency
from kvar.analysis.exact import moments_of
from kvar.estimators import gather, parse_estimators
from kvar.gradients import step_moments
from kvar.rollouts import sample, token_logits

TEXT = "K=2, kl immediate exact"


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    size = dict(n_embd=16, n_layer=1, n_head=2, vocab_size=11, n_positions=16, resid_pdrop=0.0, embd_pdrop=0.0)
    ends = dict(bos_token_id=9, eos_token_id=10, attn_pdrop=0.0)
    return [GPT2LMHeadModel(GPT2Config(**size, **ends)).double().eval() for _ in range(2)]


def drawn(student, seed: int):
    generator = torch.Generator().manual_seed(seed)
    prompts = torch.randint(0, 9, (3, 3), generator=generator), torch.ones(3, 3, dtype=torch.bool)
    return sample(student, prompts, rollouts_per_prompt=2, max_new_tokens=4, seed=seed)


def by_autograd(student, rollouts, weights, exact, u):
    """(E, P): mean over trajectories of sum_t [w log pi(y) + k sum_a pi(a) u(a)], differentiated."""
    out = []
    for e in range(len(weights)):
        student.zero_grad()
        log_pi = token_logits(student, rollouts).log_softmax(dim=-1)
        chosen = log_pi.gather(-1, rollouts.tokens.masked_fill(~rollouts.mask, 0)[..., None])[..., 0]
        total = (weights[e] * chosen).sum() + (exact[e][..., None] * log_pi.exp() * u).sum()
        (total / len(rollouts)).backward()
        out.append(torch.cat([p.grad.flatten() for p in student.parameters()]))
    return torch.stack(out)


def test_steps_are_means_of_autograds_gradients(models):
    student, teacher = models
    steps, expected = [], []
    for seed in range(4):
        rollouts, estimators = drawn(student, seed), parse_estimators(TEXT)
        evidence = gather(student, teacher, rollouts, estimators=estimators)
        steps.append((rollouts, (evidence, estimators)))
        with torch.no_grad():
            u = token_logits(teacher, rollouts).log_softmax(-1) - token_logits(student, rollouts).log_softmax(-1)
        weights = torch.stack([e.coefficients(evidence)[0] for e in estimators])
        exact = torch.stack([torch.zeros_like(weights[0]), rollouts.mask.double()])
        expected.append(by_autograd(student, rollouts, weights, exact, u))
    truth = moments_of(torch.stack(expected, dim=1), names=["K=2", "kl immediate exact"])
    for micro_batch in (None, 2):
        found = step_moments(student, iter(steps), micro_batch=micro_batch)
        assert found.names == truth.names
        for field in ("sq_norm", "mean_pair", "alignment", "cross", "pair", "prompt_pair"):
            torch.testing.assert_close(getattr(found, field), getattr(truth, field), rtol=1e-4, atol=1e-7)
    value = efficiency(found, 1, reference="K=2").value
    assert value[0] == pytest.approx(efficiency(truth, 1, reference="K=2").value[0], rel=1e-4)


def test_steps_of_other_estimators_or_too_few_are_refused(models):
    student, teacher = models
    rollouts = drawn(student, 0)
    parts = [parse_estimators(text) for text in (TEXT, "K=2")]
    steps = [(rollouts, (gather(student, teacher, rollouts, estimators=part), part)) for part in parts]
    with pytest.raises(ValueError, match="step 1 has estimators"):
        step_moments(student, steps)
    with pytest.raises(ValueError, match="at least two steps"):
        step_moments(student, steps[:1])
