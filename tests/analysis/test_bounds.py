"""The bounds (18)-(20) on exact moments of random MDPs, with hypothesis looking for a counterexample."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvar.analysis import theory
from kvar.analysis.exact import TokenMDP, moments_of, variance_raising_mdp
from kvar.returns import Geometric, Immediate, Kernel, KStep, LagKernel, TokenValues

kernels = st.one_of(
    st.builds(KStep, st.integers(1, 6), st.sampled_from(["anchored", "free"])),
    st.just(Immediate()),
    st.builds(Geometric, st.floats(0.0, 1.0)),
    st.lists(st.floats(-2.0, 2.0), max_size=4).map(lambda rest: LagKernel((1.0, *rest))),
)
mdps = st.builds(
    TokenMDP,
    vocabulary=st.integers(2, 4),
    horizon=st.integers(1, 5),
    seed=st.integers(0, 10_000),
    prompts=st.integers(1, 3),
    state=st.sampled_from(["prefix", "last-token"]),
    teacher_scale=st.floats(0.1, 5.0),
    policy_scale=st.floats(0.1, 5.0),
)
search = settings(max_examples=150, deadline=None, derandomize=True)


def exact_deviation(mdp: TokenMDP, w: Kernel, v: Kernel) -> float:
    """E|g^w - g^v|^2 by enumeration."""
    difference = mdp.gradients(w) - mdp.gradients(v)
    return float((mdp.probabilities * (difference**2).sum(dim=1)).sum())


@search
@given(mdps, kernels, kernels)
def test_bias_and_change_of_noise_share_a_budget(mdp: TokenMDP, w: Kernel, v: Kernel) -> None:
    """(18)."""
    one, other = mdp.exact(w), mdp.exact(v)
    noise = (max(one.trace, 0.0) ** 0.5 - max(other.trace, 0.0) ** 0.5) ** 2
    bias = float(((one.mean - other.mean) ** 2).sum())
    budget = exact_deviation(mdp, w, v)
    assert noise + bias <= budget * (1 + 1e-9) + 1e-9


@search
@given(mdps, kernels)
def test_gaps_bound_the_deviation(mdp: TokenMDP, w: Kernel) -> None:
    """(19), with |s_t|^2 <= 2 for a softmax over a table, and each response counted by its probability."""
    rollouts, values = mdp.responses()
    if len(rollouts) > 60:
        return
    rows = [
        (TokenValues(values.q[i : i + 1], values.v[i : i + 1]), rollouts.mask[i : i + 1]) for i in range(len(rollouts))
    ]
    parts = torch.tensor([float(theory.gap_deviation(row, mask, [w], 2.0).value[0]) for row, mask in rows])
    assert exact_deviation(mdp, w, KStep(1)) <= float((mdp.probabilities * parts).sum()) * (1 + 1e-9) + 1e-9


@search
@given(mdps, st.integers(1, 4), st.integers(2, 3), st.sampled_from(["anchored", "free"]))
def test_teacher_value_makes_the_second_moment_monotone_in_a_table(
    mdp: TokenMDP, k: int, times: int, terminal: str
) -> None:
    """(20): a table of prefixes, the teacher-value baseline, K dividing K'."""
    if mdp.student.state != "prefix":
        return
    small, large = (mdp.exact(KStep(j, terminal), "teacher-value") for j in (k, k * times))  # type: ignore[arg-type]
    assert large.second_moment <= small.second_moment * (1 + 1e-9) + 1e-12


def test_without_the_baseline_the_second_moment_may_rise() -> None:
    """(20) needs its first condition."""
    mdp = variance_raising_mdp()
    assert mdp.exact(KStep(2)).second_moment > mdp.exact(KStep(1)).second_moment


def test_with_shared_rows_the_second_moment_may_rise() -> None:
    """(20) needs its second condition: here "end" at the third token undoes "go on" at the second, under K = 1 only."""
    mdp = TokenMDP(vocabulary=2, horizon=3, state="last-token")
    mdp.teacher = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, -1.0]], dtype=torch.float64)
    with torch.no_grad():
        mdp.student.table.weight.copy_(torch.tensor([[0.0, 0.0], [9.0, 0.0]]))  # after "go on", at the start
    one, two = (mdp.exact(KStep(k, "free"), "teacher-value").second_moment for k in (1, 2))
    assert two > 100 * one


@pytest.mark.parametrize("terminal", ["anchored", "free"])
def test_larger_k_can_raise_the_variance(terminal: str) -> None:
    mdp = variance_raising_mdp(terminal)  # type: ignore[arg-type]
    one, two = (mdp.exact(KStep(k, terminal)) for k in (1, 2))  # type: ignore[arg-type]
    assert two.trace > 10 * one.trace
    assert two.trace / float(two.mean @ two.mean) > 10 * one.trace / float(one.mean @ one.mean)
    assert len(mdp.probabilities) == (4 if terminal == "anchored" else 3)


@pytest.mark.parametrize(("terminal", "tokens"), [("free", 1), ("anchored", 2)])
def test_shorter_responses_do_not_tell_the_kernels_apart(terminal: str, tokens: int) -> None:
    for seed in range(20):
        mdp = TokenMDP(3, tokens, seed=seed)
        gradients = [mdp.gradients(KStep(k, terminal)) for k in (1, 2, 3)]  # type: ignore[arg-type]
        assert torch.allclose(gradients[0], gradients[1]) and torch.allclose(gradients[0], gradients[2])


def test_the_deviation_is_estimated_from_moments() -> None:
    mdp = TokenMDP(3, 4, seed=1)
    both = torch.stack([mdp.gradients(KStep(1)), mdp.gradients(KStep(3))])
    rows = torch.multinomial(mdp.probabilities, 4000, replacement=True, generator=torch.Generator().manual_seed(0))
    found = theory.deviation(moments_of(both[:, rows], names=["K=1", "K=3"]))
    truth = exact_deviation(mdp, KStep(3), KStep(1))
    assert found.value[0] == 0.0
    assert found.low[1] < truth < found.high[1]
    assert found.value[1] == pytest.approx(float(((both[1] - both[0])[rows] ** 2).sum(dim=1).mean()))


def test_a_score_power_of_another_shape_is_refused() -> None:
    rollouts, values = TokenMDP(3, 3).responses()
    with pytest.raises(ValueError, match="score_power must be a number"):
        theory.gap_deviation(values, rollouts.mask, [KStep(2)], torch.ones(2))
