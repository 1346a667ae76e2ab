"""Efficiency toward a target whose gradient lives on other responses: the data's likelihood."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from kvar.analysis import bca, best_k, efficiency, plan, signal, summarise, toward, trace_covariance, units_for_sign
from kvar.analysis.exact import TokenMDP, moments_of
from kvar.analysis.replicates import replicates
from kvar.analysis.step.efficiency import direction_of, signed_square
from kvar.estimators import Terms, gather, parse_estimators, with_references
from kvar.gradients import GradientMoments, gradient_moments, recombine
from kvar.gradients.frames import gradient_frame, moments_from_frames, prompt_frame
from kvar.returns import LLMR
from kvar.rollouts import Rollouts, sample

PROMPTS = 48


def table(
    seed: int, prompts: int = PROMPTS, rollouts: int = 3, size: int = 6, strength: float = 1.0
) -> tuple[torch.Tensor, GradientMoments]:
    """Gradients (2, N, P), of a sampled estimator and of the data, with moments; ``strength`` scales their means."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, size, dtype=torch.float64, generator=generator)

    centre = noise(prompts) + strength * torch.arange(size)
    sampled = centre[:, None] + 2 * noise(prompts, rollouts) + strength
    data = -0.5 * centre + noise(prompts)  # leads away
    rows = prompts * (rollouts + 1)
    g = torch.zeros(2, rows, size, dtype=torch.float64)
    g[0, : prompts * rollouts] = sampled.flatten(0, 1)
    g[1, prompts * rollouts :] = data
    index = torch.cat([torch.arange(prompts).repeat_interleave(rollouts), torch.arange(prompts)])
    on = torch.zeros(2, rows, dtype=torch.bool)
    on[0, : prompts * rollouts], on[1, prompts * rollouts :] = True, True
    plain = moments_of(g, index, ["sampled", "data"])
    return g, GradientMoments(plain.names, plain.groups, plain.prompt_index, on)


def by_hand(g: torch.Tensor, index: torch.Tensor, on: torch.Tensor, batch: float) -> np.ndarray:
    """Both estimators' efficiencies toward the second, pair by pair of distinct prompts."""
    e = len(g)
    inner, square = np.zeros((e, e)), np.zeros(e)
    for a in range(e):
        for b in range(e):
            total = count = 0.0
            for i in range(len(index)):
                for j in range(len(index)):
                    if index[i] != index[j] and on[a, i] and on[b, j]:
                        total += float(g[a, i] @ g[b, j])
                        count += 1
            inner[a, b] = total / count
        square[a] = float((g[a] ** 2).sum()) / float(on[a].sum())
    noise = square - np.diag(inner)
    return np.sign(inner[:, 1]) * inner[:, 1] ** 2 / ((np.diag(inner) + noise / batch) * inner[1, 1])


def test_a_direction_is_that_of_pairs_of_distinct_prompts():
    g, moments = table(0, prompts=7)
    assert moments.on is not None
    expected = by_hand(g, moments.prompt_index, moments.on, 16)
    formed = signed_square(direction_of(replicates(moments), 1, 16, 1))
    np.testing.assert_allclose(formed[0], expected, rtol=1e-10)
    assert expected[0] < 0


def test_the_variance_counts_an_estimators_own_trajectories():
    g, moments = table(1)
    own = moments.on
    assert own is not None
    alone = moments_of(g[:1, own[0]], moments.prompt_index[own[0]], ["sampled"])
    for statistic in (trace_covariance, signal):
        ours, apart = statistic(moments), statistic(alone, unit="prompt")
        for field in ("value", "low", "high"):
            np.testing.assert_allclose(getattr(ours, field)[0], getattr(apart, field)[0], rtol=1e-9)


def test_a_step_of_several_rollouts_splits_the_variance_of_its_own_trajectories():
    g, moments = table(2)
    own = moments.on
    assert own is not None
    alone = moments_of(torch.stack([g[0, own[0]], g[0, own[0]]]), moments.prompt_index[own[0]], ["a", "b"])
    ours = efficiency(moments, 12, reference="sampled", rollouts_per_prompt=3).value[0]
    apart = efficiency(alone, 12, reference="a", rollouts_per_prompt=3, unit="prompt").value[0]
    np.testing.assert_allclose(ours, apart, rtol=1e-9)


def test_intervals_cover_the_true_efficiency():
    size, repeats = 6, 400
    mean, away = torch.arange(size).double() + 1.0, -0.5 * torch.arange(size).double()
    noise = size * (1 + 4)
    truth = -(float(mean @ away) ** 2) / float((mean @ mean + noise / 16) * (away @ away))
    inside = 0
    for seed in range(repeats):
        found = efficiency(table(seed)[1], 16, reference="data")
        inside += bool(found.low[0] <= truth <= found.high[0])
    assert 0.92 <= inside / repeats <= 0.975, inside / repeats  # 95 +- 2 and the error of 400 repeats


def test_a_table_tells_what_leads_away_and_what_is_not_resolved():
    _, moments = table(0)
    rows = toward(moments, {"data": "data", "J": "sampled"}, 16).set_index(["target", "estimator"])
    assert rows.loc[("data", "sampled"), "leads"] == "away"
    assert rows.loc[("data", "data"), "leads"] == "toward"
    assert rows.loc[("data", "sampled"), "bias"] > 1
    assert rows.loc[("J", "sampled"), "bias"] == pytest.approx(0.0, abs=1e-9)
    nothing = moments_of(torch.randn(2, 40, 6, generator=torch.Generator().manual_seed(3)), names=["a", "b"])
    unresolved = toward(nothing, {"b": "b"}, 16)
    assert set(unresolved["leads"]) == {"not resolved"}
    assert unresolved.attrs["resolved"] == {"b": False}
    numbers = ["efficiency", "efficiency_low", "efficiency_high", "bias"]
    assert unresolved[numbers].isna().all(axis=None) and rows[numbers].notna().all(axis=None)


@pytest.mark.parametrize("rollouts", [1, 3])
def test_the_data_is_no_candidate_unless_asked_for(rollouts):
    """One reference a prompt has no variance within prompts: at R > 1 its error is unknown, the others' are not."""
    _, moments = table(0)
    found = best_k(moments, 16, rollouts, reference="sampled")
    assert found["efficiency_best"].tolist() == pytest.approx([1.0, math.nan], nan_ok=True)
    assert found["mse_best"].tolist() == pytest.approx([1.0, math.nan], nan_ok=True)
    assert np.isfinite(found["mse"][1]) == (rollouts == 1) and np.isfinite(found.attrs["units_mse"])
    frame = summarise(moments, rollouts_per_prompt=rollouts, reference="sampled").set_index(["statistic", "kernel"])
    assert frame["value"]["best_probability"].tolist() == pytest.approx([1.0, math.nan], nan_ok=True)
    asked = best_k(moments, 16, reference="sampled", among=["data"])
    assert asked.attrs["best_mse"] == "data" and math.isnan(asked["mse_best"][0])
    with pytest.raises(ValueError, match="among: 'K=9' is none of the estimators sampled, data"):
        best_k(moments, 16, among=["K=9"])


@pytest.mark.parametrize("ask", [plan, toward, efficiency, summarise])
def test_a_step_without_rollouts_is_refused(ask):
    _, moments = table(0)
    given = {plan: ("data", 64), toward: (["data"], 64), efficiency: (64,), summarise: ()}[ask]
    with pytest.raises(ValueError, match="rollouts_per_prompt must be at least 1; got 0"):
        ask(moments, *given, rollouts_per_prompt=0)


def test_as_many_units_as_planned_tell_the_sign():
    _, few = table(5, prompts=24)
    needed = units_for_sign(efficiency(few, 16, reference="data"))
    assert needed[0] < 24
    with pytest.raises(ValueError, match="'unknown' is none of the estimators"):
        toward(few, {"x": "unknown"}, 16)


def test_a_fresh_measurement_of_the_planned_size_tells_as_often_as_planned():
    """Within the error of 60 draws; the size is planned from 2,000 prompts, so that it is the one that is needed."""
    planned = plan(table(0, prompts=2000, strength=0.15)[1], "data", 16, power=0.8)
    assert planned.attrs["reference"] == "data" and (planned["units_needed"] == 2000).all()  # no fewer than the pilot's
    size = units_for_sign(signal(table(0, prompts=2000, strength=0.15)[1]), power=0.8)[1]
    assert 30 < size < 400
    told = [signal(table(1 + k, prompts=int(size), strength=0.15)[1]).low[1] > 0 for k in range(60)]
    assert 0.6 < np.mean(told) < 0.95, (size, np.mean(told))
    one = signal(table(0)[1])
    ratio = units_for_sign(one, power=0.8) / units_for_sign(one)
    np.testing.assert_allclose(ratio, ((1.95996 + 0.84162) / 1.95996) ** 2, rtol=1e-4)
    with pytest.raises(ValueError, match="power must lie between 0 and 1; got 1"):
        plan(table(0)[1], "data", power=1)


def test_estimators_from_different_trajectories_are_neither_added_nor_split_by_trajectory():
    _, moments = table(0)
    with pytest.raises(ValueError, match="different trajectories"):
        recombine(moments, torch.tensor([[1.0, 1.0]]), ["sum"])
    with pytest.raises(ValueError, match="unit"):
        efficiency(moments, 16, unit="trajectory")
    assert np.isfinite(bca(moments, lambda data: np.diagonal(data.signal(), axis1=1, axis2=2), draws=50).value).all()


def test_the_data_beside_samples_of_a_transformer_is_autograds_likelihood():
    torch.manual_seed(0)
    size = dict(n_embd=16, n_layer=1, n_head=2, vocab_size=11, n_positions=32, resid_pdrop=0.0, embd_pdrop=0.0)
    ends = dict(bos_token_id=9, eos_token_id=10, attn_pdrop=0.0)
    student, teacher = (GPT2LMHeadModel(GPT2Config(**size, **ends)).double().eval() for _ in range(2))
    prompts = torch.randint(0, 9, (4, 3)), torch.ones(4, 3, dtype=torch.bool)
    drawn = sample(student, prompts, rollouts_per_prompt=2, max_new_tokens=4, seed=0)
    tokens = torch.tensor([[1, 2, 10, 0, 0, 0], [3, 10, 0, 0, 0, 0], [4, 5, 6, 7, 8, 10], [2, 10, 0, 0, 0, 0]])
    lengths = torch.tensor([3, 2, 6, 2])
    mask = torch.arange(6) < lengths[:, None]
    written = Rollouts(*prompts, tokens, mask, torch.ones(4).bool(), torch.arange(4), torch.zeros(4, 6), drawn.policy)
    estimators = parse_estimators("K=2, kl immediate exact, kl K=1 - leave-one-out")
    evidence = gather(student, teacher, drawn, estimators=estimators)
    terms = with_references(Terms.of(estimators, evidence), written)
    joint = gradient_moments(student, terms.evidence.rollouts, terms)
    apart = gradient_moments(student, drawn, (evidence, estimators))
    assert joint.on is not None and joint.names == (*apart.names, "data")
    torch.testing.assert_close(joint.sq_norm[:3, :8], apart.sq_norm, rtol=1e-9, atol=1e-12)
    assert not joint.sq_norm[:3, 8:].any() and not joint.sq_norm[3, :8].any()
    for row in range(4):
        student.zero_grad()
        ids = torch.cat([prompts[0][row], tokens[row, : lengths[row]]])
        log_pi = student(ids[None]).logits[0, 2:-1].log_softmax(dim=-1)
        log_pi[torch.arange(lengths[row]), tokens[row, : lengths[row]]].sum().backward()
        square = sum(float((p.grad**2).sum()) for p in student.parameters() if p.grad is not None)
        assert float(joint.sq_norm[3, 8 + row]) == pytest.approx(square, rel=1e-9)


def test_the_datas_direction_on_an_enumerable_mdp():
    mdp = TokenMDP(3, 3, seed=4, prompts=24, state="last-token")
    rollouts, _ = mdp.responses()
    teacher = mdp.teacher.log_softmax(dim=1)
    states = rollouts.prompt_index[:, None] * int(mdp.tree.offsets[-1]) + mdp.tree.prefix_ids(rollouts.tokens)
    chosen = teacher[states, rollouts.tokens].masked_fill(~rollouts.mask, 0.0).sum(dim=1).exp() / mdp.prompts
    ones = mdp.gradients(LLMR()) * 0
    for row in range(len(rollouts)):  # grad log pi of each response, by autograd
        weight = mdp.student.table.weight.detach().clone().requires_grad_()
        log_pi = weight.log_softmax(dim=1)[mdp.table_rows(rollouts)[row], rollouts.tokens[row]]
        (grad,) = torch.autograd.grad((log_pi * rollouts.mask[row]).sum(), weight)
        ones[row] = grad.flatten()
    data = chosen @ ones
    wanted = mdp.exact(LLMR()).mean
    truth = float((wanted @ data) * (wanted @ data).abs() / ((wanted @ wanted) * (data @ data)))
    generator = torch.Generator().manual_seed(0)
    each = len(rollouts) // mdp.prompts
    drawn, written = (
        torch.cat(
            [
                m * each + torch.multinomial(p[m * each : (m + 1) * each], count, True, generator=generator)
                for m in range(24)
            ]
        )
        for p, count in ((mdp.probabilities, 300), (chosen, 100))
    )
    g = torch.zeros(2, len(drawn) + len(written), ones.shape[1], dtype=torch.float64)
    g[0, : len(drawn)] = mdp.gradients(LLMR())[drawn]
    g[1, len(drawn) :] = ones[written]
    on = torch.zeros(2, g.shape[1], dtype=torch.bool)
    on[0, : len(drawn)], on[1, len(drawn) :] = True, True
    plain = moments_of(g, rollouts.prompt_index[torch.cat([drawn, written])], ["K=1", "data"])
    found = efficiency(GradientMoments(plain.names, plain.groups, plain.prompt_index, on), math.inf, reference="data")
    assert abs(found.value[0] - truth) < 0.1


def test_records_keep_which_trajectories_an_estimator_is_from():
    _, moments = table(0, prompts=5)
    at = {"probe": "probe", "step": 0}
    back = moments_from_frames(gradient_frame(moments, **at), prompt_frame(moments, **at))
    assert back.on is not None and torch.equal(back.on, moments.on)
    for field in ("sq_norm", "mean_pair", "cross", "pair", "prompt_pair"):
        torch.testing.assert_close(getattr(back, field), getattr(moments, field))
    data = recombine(back, torch.tensor([[0.0, 2.0]]), ["twice"])
    torch.testing.assert_close(trace_covariance(data).value[0], 4 * trace_covariance(moments).value[1])


def test_noise_names_no_best_estimator() -> None:
    """Gradients of mean 0, sums of fewer and fewer terms: no direction is wanted, and none is said to be met best."""
    generator = torch.Generator().manual_seed(3)
    named = compared = 0
    for _ in range(60):
        terms = torch.randn(5, 80, 30, generator=generator, dtype=torch.float64)
        sums = torch.stack([terms[: 5 - i].sum(dim=0) for i in range(5)])
        found = best_k(moments_of(sums, torch.arange(80) // 2, ("K=1", "K=2", "K=4", "K=8", "immediate")), 16)
        compared += bool(found["efficiency_best"].notna().any())
        named += found.attrs["best_efficiency"] is not None
    assert compared > 5 and named < 3
