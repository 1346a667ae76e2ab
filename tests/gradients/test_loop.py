"""The loop engine: its options, and its mean against enumeration; test_engines.py compares all its fields."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kvar.analysis.exact import TokenMDP
from kvar.gradients import gradient_moments
from kvar.returns import Geometric, Immediate, KStep, returns
from tests.cases import build, rollouts
from tests.gradients.truth import assert_close, true_moments, weights


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_groups_may_overlap_and_an_empty_response_has_no_gradient(name: str) -> None:
    student, data = build(name), rollouts()
    mask = data.mask.clone()
    mask[4] = False
    data, w = replace(data, mask=mask), weights(data)
    half = list(student.parameters())[:3]
    found = gradient_moments(
        student, data, w, engine="loop", groups={"half": half, "again": half[:1]}, score_power=True
    )
    groups = {"all": list(student.parameters()), "half": half, "again": half[:1]}
    assert list(found) == list(groups)
    assert_close(dict(found.groups), true_moments(student, data, w, groups), 1e-6)
    assert found.prompts.tolist() == [3, 7]
    assert found.sq_norm[:, 4].tolist() == [0.0, 0.0, 0.0]


def test_norms_alone() -> None:
    student, data = build("gpt2"), rollouts(n=3)
    w = weights(data)
    norms = gradient_moments(student, data, w, engine="loop", fields="norms", score_power=True)
    truth = true_moments(student, data, w, {"all": list(student.parameters())})["all"]
    torch.testing.assert_close(norms.sq_norm, truth.sq_norm)
    torch.testing.assert_close(norms.score_power, truth.score_power)
    assert norms.pair is None and norms.cross is None and norms.alignment is None and norms.prompt_pair is None


def test_gradients_recomputed_in_the_second_pass_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    student, data = build("gpt2"), rollouts(n=3)
    held = gradient_moments(student, data, weights(data), engine="loop")
    monkeypatch.setattr("kvar.gradients.loop._HELD", 0)
    again = gradient_moments(student, data, weights(data), engine="loop")
    assert_close(dict(again.groups), dict(held.groups), 0.0)


def test_frozen_parameters_are_left_out() -> None:
    student, data = build("gpt2"), rollouts(n=3)
    student.transformer.h[0].requires_grad_(False)
    rest = [p for p in student.parameters() if p.requires_grad]
    truth = true_moments(student, data, weights(data), {"all": rest})["all"]
    torch.testing.assert_close(gradient_moments(student, data, weights(data), engine="loop").sq_norm, truth.sq_norm)


@pytest.mark.parametrize("state", ["prefix", "last-token"])
@pytest.mark.parametrize("baseline", [None, "teacher-value"])
def test_the_mean_over_all_responses_is_the_enumerated_mean(state: str, baseline: str | None) -> None:
    mdp = TokenMDP(3, 4, seed=3, prompts=2, state=state)
    rollouts, values = mdp.responses()
    kernels = [KStep(1), KStep(2), KStep(3, "free"), Geometric(0.7), Immediate()]
    p = mdp.probabilities
    # trajectories are weighted by probability: then N gbar = E g
    weights = returns(values, rollouts.mask, kernels, baseline=baseline) * p[None, :, None]
    found = gradient_moments(mdp.student, rollouts, weights, engine="loop")
    exact = [mdp.exact(kernel, baseline) for kernel in kernels]
    means = torch.stack([e.mean for e in exact])
    torch.testing.assert_close(found.mean_pair * len(rollouts) ** 2, means @ means.T, rtol=1e-10, atol=1e-14)
    second = (found.sq_norm / p).sum(dim=1)
    torch.testing.assert_close(second, torch.tensor([e.second_moment for e in exact], dtype=torch.float64))


def test_a_callable_must_return_differentiable_scalars() -> None:
    student, data = build("gpt2"), rollouts(n=2)
    with pytest.raises(ValueError, match=r"must return \(E, N\) scalars, N = 2"):
        gradient_moments(student, data, lambda logits: logits.sum(), engine="loop")
    with pytest.raises(ValueError, match="without a gradient"):
        gradient_moments(student, data, lambda logits: logits.detach().sum((1, 2))[None], engine="loop")
