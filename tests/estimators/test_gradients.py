"""Gradients of estimators against autograd written out, and every engine against each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kvar.analysis.exact import TokenMDP
from kvar.estimators import gather, parse_estimators
from kvar.gradients import gradient_moments
from kvar.rollouts import Policy, Rollouts, sample, token_logits
from kvar.rollouts.forward import unrestricted_logits
from tests.cases import ragged_prompts, tiny_gpt2, tiny_llama, tiny_t5

POLICY = Policy(size=15, ends=(1,), forbidden=(4,), forbidden_first=(1, 5))
FIELDS = ("sq_norm", "mean_pair", "alignment", "cross", "pair", "prompt_pair")
TEXT = (
    "K=4, gap K=1 exact expected - leave-one-out, kl immediate exact, kl geometric(0.9) exact - leave-one-out, gap "
    "immediate centred, kl immediate exact sequence-ratio, jsd(0.5) immediate exact, top-k(3) immediate exact, k3-loss "
    "immediate exact, kl window(2) expected - w-proxy, gap thinning(2) exact - group-normalised, score - leave-one-out"
)


def case(make: Any, policy: Policy | None = POLICY) -> tuple[Any, Any, Rollouts]:
    student, teacher = make(seed=0).double(), make(seed=1).double()
    drawn = sample(
        student, ragged_prompts(), None, rollouts_per_prompt=2, max_new_tokens=5, seed=0,
        policy=policy or Policy(ends=(1,)),
    )  # fmt: skip
    noise = torch.randn(drawn.log_probs.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    behaviour = (drawn.log_probs.double() + 0.2 * noise).masked_fill(~drawn.mask, 0.0)
    return student, teacher, replace(drawn, log_probs=behaviour, policy=policy)


def flat(student: nn.Module, scalar: Tensor) -> Tensor:
    found = torch.autograd.grad(
        scalar, list(student.parameters()), retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return torch.cat([g.flatten() for g in found])


@pytest.mark.parametrize("make", [tiny_t5, tiny_gpt2])
def test_an_exact_term_is_the_gradient_of_the_expected_reward_with_the_reward_held_fixed(make: Any) -> None:
    student, teacher, rollouts = case(make)
    estimators = parse_estimators("kl immediate exact, gap K=1 exact, gap K=1 exact expected - leave-one-out")
    evidence = gather(student, teacher, rollouts, estimators=estimators)
    found = gradient_moments(student, rollouts, (evidence, estimators))
    assert found.names == tuple(e.name for e in estimators)
    mask = rollouts.mask
    inside = torch.zeros(mask.shape[1], 17, dtype=torch.bool)
    inside[:, [a for a in range(15) if a != 4]] = True
    inside[0, [1, 5]] = False
    logits = unrestricted_logits(student, rollouts).masked_fill(~inside, -1e9)  # no policy, no infinity
    with torch.no_grad():
        f = unrestricted_logits(teacher, rollouts).masked_fill(~inside, -1e9)
    log_pi, pi = logits.log_softmax(-1), logits.softmax(-1)
    chosen = log_pi.gather(-1, rollouts.tokens[..., None])[..., 0]
    gap = (f - f.max(-1, keepdim=True).values) * inside
    kl = ((f.log_softmax(-1) - log_pi) * inside).detach()
    gap_t = gap.gather(-1, rollouts.tokens[..., None])[..., 0] * mask
    gap_bar = ((pi.detach() * gap).sum(-1)) * mask
    gradients = []
    for i in range(len(rollouts)):
        rows = mask[i]
        after = [gap_t[i, t + 1 :].sum() for t in range(5)]
        expected = torch.stack([gap_bar[i, t + 1 :].sum() for t in range(5)])
        mate = i ^ 1  # the other rollout of the prompt
        theirs = torch.stack([gap_bar[mate, t + 1 :].sum() for t in range(5)])
        count = int(mask[mate].sum())
        anywhere = theirs[:count].mean()
        base = torch.where(mask[mate], theirs, anywhere)
        exact = (pi[i] * gap[i]).sum(-1)[rows].sum()
        gradients.append(
            [
                flat(student, (pi[i] * kl[i]).sum(-1)[rows].sum()),
                flat(student, exact + (torch.stack(after) * chosen[i])[rows].sum()),
                flat(student, exact + ((expected - base) * chosen[i])[rows].sum()),
            ]
        )
    g = torch.stack([torch.stack(row) for row in gradients])  # (N, E, P)
    pair = torch.einsum("nep,nfp->efn", g, g)
    torch.testing.assert_close(found.pair, pair, rtol=1e-9, atol=1e-12)
    mean = g.mean(dim=0)
    torch.testing.assert_close(found.mean_pair, mean @ mean.T, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("make", "tolerance"), [(tiny_t5, 1e-10), (tiny_gpt2, 1e-10), (tiny_llama, 1e-5)])
@pytest.mark.parametrize("policy", [POLICY, None])
def test_engines_agree(make: Any, tolerance: float, policy: Policy | None) -> None:
    student, teacher, rollouts = case(make, policy)
    estimators = parse_estimators(TEXT)
    evidence = gather(student, teacher, rollouts, lambda r: r.tokens.sum(dim=1), estimators=estimators)
    truth = gradient_moments(student, rollouts, (evidence, estimators), engine="loop")
    scale = float(truth.pair.abs().max())
    for micro_batch in (None, 2, 1):
        found = gradient_moments(student, rollouts, (evidence, estimators), micro_batch=micro_batch)
        for field in FIELDS:
            apart = (getattr(found["all"], field) - getattr(truth["all"], field)).abs().max()
            assert float(apart) < tolerance * scale, field


def test_groups_norms_and_score_power_go_along() -> None:
    student, teacher, rollouts = case(tiny_t5)
    estimators = parse_estimators("kl immediate exact, K=1")
    evidence = gather(student, teacher, rollouts, estimators=estimators)
    options = {"groups": {"decoder": "decoder"}, "score_power": True}
    truth = gradient_moments(student, rollouts, (evidence, estimators), engine="loop", **options)
    found = gradient_moments(student, rollouts, (evidence, estimators), **options)
    norms = gradient_moments(student, rollouts, (evidence, estimators), fields="norms", **options)
    for group in ("all", "decoder"):
        for field in (*FIELDS, "score_power"):
            torch.testing.assert_close(
                getattr(found[group], field), getattr(truth[group], field), rtol=1e-9, atol=1e-12
            )
        torch.testing.assert_close(norms[group].sq_norm, truth[group].sq_norm, rtol=1e-9, atol=1e-12)
    named = gradient_moments(student, rollouts, (evidence, estimators), names=["a", "b"])
    assert named.names == ("a", "b")
    with pytest.raises(ValueError, match="1 entries"):
        gradient_moments(student, rollouts, (evidence, estimators), names=["a"])


def test_jvp_estimates_them_without_bias() -> None:
    """From many directions they are within their error of the truth."""
    mdp = TokenMDP(3, 3, seed=0)
    rollouts, _ = mdp.sample(12, seed=1)
    estimators = parse_estimators("kl K=1 exact, gap immediate exact, kl immediate")
    evidence = gather(mdp.student, mdp.teacher_model, rollouts, estimators=estimators)
    truth = gradient_moments(mdp.student, rollouts, (evidence, estimators), engine="loop")
    found = gradient_moments(mdp.student, rollouts, (evidence, estimators), engine="jvp", directions=150, micro_batch=5)
    error = (found.pair - truth.pair).abs().mean() / truth.pair.abs().mean()
    assert float(error) < 4 * (2 / 150) ** 0.5
    assert float((found.mean_pair - truth.mean_pair).abs().max() / truth.mean_pair.abs().max()) < 4 * (2 / 150) ** 0.5


def test_sampled_moments_tend_to_the_enumerated_ones() -> None:
    mdp = TokenMDP(3, 3, seed=2, prompts=2, state="last-token")
    rollouts, _ = mdp.sample(4000, seed=3)
    estimators = parse_estimators("kl K=1 exact expected, gap immediate centred, jsd(0.5) immediate exact")
    evidence = gather(mdp.student, mdp.teacher_model, rollouts, estimators=estimators)
    found = gradient_moments(mdp.student, rollouts, (evidence, estimators), fields="norms")
    for e, estimator in enumerate(estimators):
        exact = mdp.exact(estimator)
        norms = found.sq_norm[e]
        assert abs(float(norms.mean()) - exact.second_moment) < 4 * float(norms.std()) / 4000**0.5


def test_estimators_without_exact_terms_are_token_weights() -> None:
    student, teacher, rollouts = case(tiny_gpt2)
    estimators = parse_estimators("K=2, kl geometric(0.5) centred expected, gap K=1 - batch-mean")
    evidence = gather(student, teacher, rollouts, estimators=estimators)
    weights = torch.stack([e.coefficients(evidence)[0] for e in estimators])
    found = gradient_moments(student, rollouts, (evidence, estimators))
    assert torch.equal(found.pair, gradient_moments(student, rollouts, weights).pair)
    with torch.no_grad():
        f = token_logits(teacher, rollouts)
    q = f.gather(-1, rollouts.tokens[..., None])[..., 0]
    v = f.max(-1).values
    centre = f.masked_fill(f == -torch.inf, 0.0).sum(-1) / (f > -torch.inf).sum(-1)
    for i, length in enumerate(rollouts.lengths.tolist()):
        for t in range(length):
            later = [j for j in range(t, length) if (j - t) % 2 == 0 or j == length - 1]
            expected = float(v[i, t] - centre[i, t]) - sum(float(v[i, j] - q[i, j]) for j in later)
            assert float(weights[0, i, t]) == pytest.approx(expected, rel=1e-9, abs=1e-9)
