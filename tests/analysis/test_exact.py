"""The enumerable token MDP, and the identities of theory.md (6) to (9) on it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kvar.analysis.exact import TokenMDP
from kvar.returns import Geometric, Immediate, Kernel, KStep, LagKernel
from kvar.rollouts import token_logits

KERNELS = [
    KStep(1), KStep(2), KStep(3), KStep(2, "free"), KStep(3, "free"),
    Immediate(), Geometric(0.6), LagKernel([1, 0.5, 2]),
]  # fmt: skip
SHAPES = [
    (3, 4, 1, "prefix"),
    (3, 4, 3, "last-token"),
    (4, 3, 2, "prefix"),
    (2, 6, 2, "last-token"),
    (3, 1, 2, "prefix"),
]


def make(shape: tuple[int, int, int, str], seed: int = 0) -> TokenMDP:
    vocabulary, horizon, prompts, state = shape
    return TokenMDP(vocabulary, horizon, seed=seed, prompts=prompts, state=state)


def weight(kernel: Kernel, lag: int, remaining: int) -> float:
    """w_lag from the kernel's definition in theory.md (4), without kvar's code."""
    if isinstance(kernel, KStep):
        kept = lag % kernel.k == 0 or (kernel.terminal == "anchored" and lag == remaining)
        return float(kept)
    if isinstance(kernel, Immediate):
        return float(lag == 0)
    if isinstance(kernel, Geometric):
        return kernel.lam**lag
    return kernel.weights[lag] if lag < len(kernel.weights) else 0.0


def score(mdp: TokenMDP, prompt: int, tokens: list[int]) -> list[Tensor]:
    """(P,) grad log pi of every token, by autograd, state by state."""
    row = mdp.student.rows(torch.tensor([prompt]), torch.tensor([tokens]))[0]
    table = mdp.student.table.weight
    return [
        torch.autograd.grad(table[row[t]].log_softmax(0)[token], table)[0].flatten() for t, token in enumerate(tokens)
    ]


@pytest.mark.parametrize("shape", SHAPES)
def test_enumeration_is_complete(shape: tuple) -> None:
    mdp = make(shape)
    rollouts, values = mdp.responses()
    v, h, m, _ = shape
    assert len(rollouts) == m * (sum((v - 1) ** t for t in range(h)) + (v - 1) ** h)
    rows = {
        (int(p), tuple(y[k].tolist()))
        for p, y, k in zip(rollouts.prompt_ids, rollouts.tokens, rollouts.mask, strict=True)
    }
    assert len(rows) == len(rollouts)
    assert float(mdp.probabilities.sum()) == pytest.approx(1.0, abs=1e-12)
    last = rollouts.tokens.gather(1, rollouts.lengths[:, None] - 1)[:, 0]
    assert torch.equal(last == v - 1, rollouts.finished)
    assert bool((values.gap >= 0).all())


@pytest.mark.parametrize("shape", SHAPES)
def test_the_student_scores_tokens_with_the_policy_of_the_enumeration(shape: tuple) -> None:
    mdp = make(shape)
    rollouts, _ = mdp.responses()
    log_probs = token_logits(mdp.student, rollouts).log_softmax(-1).gather(2, rollouts.tokens[..., None])[..., 0]
    torch.testing.assert_close(log_probs.masked_fill(~rollouts.mask, 0), rollouts.log_probs)


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_samples_follow_the_enumerated_probabilities(shape: tuple) -> None:
    mdp, n = make(shape), 20_000
    everything, all_values = mdp.responses()
    number = {
        (int(p), *y.tolist()): i
        for i, (p, y) in enumerate(zip(everything.prompt_index, everything.tokens, strict=True))
    }
    rollouts, values = mdp.sample(n, seed=1)
    drawn = torch.tensor(
        [number[int(p), *y.tolist()] for p, y in zip(rollouts.prompt_index, rollouts.tokens, strict=True)]
    )
    for field in ("tokens", "mask", "finished", "log_probs"):
        assert torch.equal(getattr(rollouts, field), getattr(everything, field)[drawn])
    assert torch.equal(values.q, all_values.q[drawn])
    expected = mdp.probabilities * n
    chi2 = float(((torch.bincount(drawn, minlength=len(expected)) - expected) ** 2 / expected).sum())
    freedom = len(expected) - 1
    assert abs(chi2 - freedom) < 4.5 * math.sqrt(2 * freedom)
    assert torch.equal(mdp.sample(5, seed=1)[0].tokens, mdp.sample(5, seed=1)[0].tokens)


@pytest.mark.parametrize("shape", SHAPES)
def test_k1_mean_is_the_gradient_of_j(shape: tuple) -> None:
    """(6), by autograd through the enumeration."""
    mdp = make(shape)
    rollouts, values = mdp.responses()
    table = mdp.student.table.weight
    rows = mdp.student.rows(rollouts.prompt_index, rollouts.tokens)
    log_probs = table.log_softmax(1)[rows, rollouts.tokens].masked_fill(~rollouts.mask, 0)
    objective = values.v[:, 0] - values.gap.sum(dim=1)
    j = (log_probs.sum(dim=1).exp() / mdp.prompts * objective).sum()
    (truth,) = torch.autograd.grad(j, table)
    for terminal in ("anchored", "free"):
        exact = mdp.exact(KStep(1, terminal))
        torch.testing.assert_close(exact.mean, truth.flatten(), rtol=1e-10, atol=1e-13)
        assert float(exact.bias.abs().max()) < 1e-14


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.name)
@pytest.mark.parametrize("shape", SHAPES)
def test_moments_equal_sums_by_definition(shape: tuple, kernel: Kernel) -> None:
    """(5), (7), (8), (9): every sum written out token by token."""
    mdp = make(shape)
    rollouts, values = mdp.responses()
    probability, gap = mdp.probabilities, values.gap
    size = mdp.student.table.weight.numel()
    mean, second, bias = torch.zeros(size).double(), 0.0, torch.zeros(size).double()
    by_prompt = torch.zeros(mdp.prompts, size).double()
    for i in range(len(rollouts)):
        length, p = int(rollouts.lengths[i]), float(probability[i])
        g = torch.zeros(size).double()
        for t, s in enumerate(score(mdp, int(rollouts.prompt_index[i]), rollouts.tokens[i, :length].tolist())):
            lags = range(length - t)
            w = [weight(kernel, lag, length - 1 - t) for lag in lags]
            g += (values.v[i, t] - sum(w[lag] * gap[i, t + lag] for lag in lags)) * s
            bias += p * sum((1 - w[lag]) * gap[i, t + lag] for lag in lags if lag) * s
        mean += p * g
        by_prompt[int(rollouts.prompt_index[i])] += p * mdp.prompts * g
        second += p * float(g @ g)
    exact = mdp.exact(kernel)
    torch.testing.assert_close(exact.mean, mean, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(exact.bias, bias, rtol=1e-10, atol=1e-13)  # (7)
    assert exact.second_moment == pytest.approx(second, rel=1e-10)
    assert exact.trace == pytest.approx(second - float(mean @ mean), rel=1e-9)  # (8)
    between = float((by_prompt - mean).pow(2).sum(dim=1).mean())
    assert exact.between == pytest.approx(between, rel=1e-9, abs=1e-12)  # (9)
    assert exact.within + exact.between == pytest.approx(exact.trace, rel=1e-9)
    table = mdp.gradients(kernel)
    torch.testing.assert_close((probability[:, None] * table).sum(dim=0), mean, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("kernel", KERNELS[:4], ids=lambda k: k.name)
def test_a_teacher_value_baseline_leaves_the_mean(kernel: Kernel) -> None:
    mdp = make(SHAPES[1])
    plain, based = mdp.exact(kernel), mdp.exact(kernel, baseline="teacher-value")
    torch.testing.assert_close(plain.mean, based.mean, rtol=1e-9, atol=1e-12)
    assert plain.trace != pytest.approx(based.trace, rel=1e-3)


def test_no_bias_where_the_student_is_the_teachers_greedy_choice() -> None:
    mdp = TokenMDP(3, 4, seed=0)
    with torch.no_grad():
        mdp.student.table.weight.copy_(torch.nn.functional.one_hot(mdp.teacher.argmax(dim=1), 3) * 60.0)
    for kernel in KERNELS:
        assert float(mdp.exact(kernel).bias.norm()) < 1e-12


def test_variance_need_not_fall_with_k() -> None:
    """Monotonicity is no law: an MDP where the free comb has more variance at K = 3 than at K = 2."""
    mdp = TokenMDP(2, 4, seed=131)
    assert mdp.exact(KStep(3, "free")).trace > 1.05 * mdp.exact(KStep(2, "free")).trace


def test_bad_sizes_and_baselines_are_refused() -> None:
    with pytest.raises(ValueError, match="vocabulary must be an integer of at least 2; got 1"):
        TokenMDP(1, 4)
    with pytest.raises(ValueError, match="smaller horizon"):
        TokenMDP(11, 9)
    with pytest.raises(ValueError, match="'prefix' or 'last-token'"):
        TokenMDP(3, 3, state="all")
    with pytest.raises(ValueError, match="depends on a batch"):
        TokenMDP(3, 3).exact(KStep(1), baseline="batch-mean")
