"""On the token MDP, where everything is enumerated: means, biases and variances are what docstrings and theory say."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kvar.analysis.exact import TokenMDP, exact_raising_mdp
from kvar.estimators import Estimator, Score, TokenReward, gather, parse_estimators
from kvar.returns import LLMR, KStep
from kvar.rollouts import Rollouts

REWARDS = ["gap", "kl", "forward-kl", "k1-loss", "k2-loss", "k3-loss", "jsd(0.3)", "top-k(2)", "top-k-tail(1)"]


def moments(mdp: TokenMDP, text: str, **options):
    return mdp.exact(parse_estimators(text)[0], **options)


def responses(mdp: TokenMDP) -> list[tuple[int, ...]]:
    """Every response, by walking the tree; the last token ends one."""
    end, out = mdp.tree.vocabulary - 1, []
    stack: list[tuple[int, ...]] = [()]
    while stack:
        prefix = stack.pop()
        if len(prefix) == mdp.tree.horizon or (prefix and prefix[-1] == end):
            out.append(prefix)
            continue
        stack += [(*prefix, token) for token in range(end + 1)]
    return out


def by_autograd(mdp: TokenMDP, value) -> Tensor:
    """The gradient by the student's table of value(log pi rows, p rows, response), summed over everything it gives."""
    assert mdp.prompts == 1 and mdp.student.state == "prefix"
    table = mdp.student.table.weight.detach().clone().requires_grad_()
    log_pi, log_p = table.log_softmax(dim=1), mdp.teacher.log_softmax(dim=1)
    total = table.new_zeros(())
    for response in responses(mdp):
        rows = [row_of(mdp, response[:t]) for t in range(len(response))]
        total = total + value(log_pi[rows], log_p[rows], mdp.teacher[rows], torch.tensor(response))
    return torch.autograd.grad(total, table)[0].flatten()


def row_of(mdp: TokenMDP, prefix: tuple[int, ...]) -> int:
    """Prefixes are numbered by length, then in base V - 1."""
    base, number = mdp.tree.eos, 0
    for token in prefix:
        number = number * base + token
    return sum(base**length for length in range(len(prefix))) + number


@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize("kernel", ["K=1", "K=2 free", "immediate", "geometric(0.7)", "window(2)", "scaled-comb(2)"])
def test_sampled_centred_exact_and_expected_have_one_mean(reward: str, kernel: str) -> None:
    for state in ("prefix", "last-token"):
        mdp = TokenMDP(3, 4, seed=2, prompts=2, state=state)
        words = itertools.product(("", "centred", "exact"), ("", "expected"))
        means = [moments(mdp, f"{reward} {kernel} {i} {f}").mean for i, f in words]
        assert max(float((mean - means[0]).abs().max()) for mean in means) < 1e-12


def test_the_anchored_comb_needs_a_sampled_future() -> None:
    """Its weights depend on whether a token is the last: summed over that token the mean would be another."""
    mdp = TokenMDP(3, 3, seed=1)
    exact, sampled = moments(mdp, "gap K=2 exact"), moments(mdp, "gap K=2")
    torch.testing.assert_close(exact.mean, sampled.mean, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="such as K=4 free"):
        parse_estimators("gap K=2 expected")


def test_all_lags_give_the_gradient_of_the_expected_sum() -> None:
    mdp = TokenMDP(3, 3, seed=3)

    def sum_of_gaps(log_pi, log_p, f, y):
        chosen = f.gather(1, y[:, None])[:, 0]
        return log_pi.gather(1, y[:, None]).sum().exp() * (chosen - f.amax(dim=1)).sum()

    def kl(log_pi, log_p, f, y):
        pi, p = (x.gather(1, y[:, None])[:, 0] for x in (log_pi, log_p))
        return pi.sum().exp() * (p - pi).sum()

    for reward, value in (("gap", sum_of_gaps), ("kl", kl)):
        truth = by_autograd(mdp, value)
        found = moments(mdp, f"{reward} K=1 exact expected")
        torch.testing.assert_close(found.mean, truth, rtol=0, atol=1e-12)
        assert float(found.bias.abs().max()) < 1e-12
    torch.testing.assert_close(moments(mdp, "K=1").mean, mdp.exact(LLMR()).mean, rtol=1e-13, atol=1e-15)
    assert moments(mdp, "K=2 - teacher-value").trace == pytest.approx(mdp.exact(KStep(2), "teacher-value").trace)


def divergence_gradient(mdp: TokenMDP, of) -> Tensor:
    """Minus the gradient of a divergence of next-token distributions, over the states that the student visits."""

    def value(log_pi, log_p, f, y):
        reach = log_pi.gather(1, y[:, None]).sum().exp().detach()
        return -reach * of(log_pi, log_p).sum()

    return by_autograd(mdp, value)


def reverse(log_pi, log_p):
    return (log_pi.exp() * (log_pi - log_p)).sum(dim=1)


def forward(log_pi, log_p):
    return (log_p.exp() * (log_p - log_pi)).sum(dim=1)


def jsd(log_pi, log_p, beta=0.3):
    m = (beta * log_p.exp() + (1 - beta) * log_pi.exp()).log()
    return beta * (log_p.exp() * (log_p - m)).sum(dim=1) + (1 - beta) * (log_pi.exp() * (log_pi - m)).sum(dim=1)


def top_two(log_pi, log_p):
    kept = log_pi.topk(2, dim=1).indices
    few, theirs = (x.gather(1, kept).log_softmax(dim=1) for x in (log_pi, log_p))
    return (few.exp() * (few - theirs)).sum(dim=1)


def top_one_and_tail(log_pi, log_p):
    kept = log_pi.argmax(dim=1, keepdim=True)
    rows = []
    for x in (log_pi, log_p):
        first = x.gather(1, kept).exp()
        rows.append(torch.cat([first, 1 - first], dim=1))
    return (rows[0] * (rows[0] / rows[1]).log()).sum(dim=1)


@pytest.mark.parametrize(
    ("text", "of"),
    [
        ("kl immediate", reverse),
        ("kl immediate exact", reverse),
        ("k2-loss immediate", reverse),
        ("forward-kl immediate exact", forward),
        ("forward-kl immediate", forward),
        ("k3-loss immediate", forward),
        ("k3-loss immediate exact", forward),
        ("jsd(0.3) immediate exact", jsd),
        ("jsd(0.3) immediate centred", jsd),
        ("top-k(2) immediate exact", top_two),
        ("top-k-tail(1) immediate exact", top_one_and_tail),
        ("top-k(3) immediate exact", reverse),
        ("teacher-top-k(3) immediate exact", reverse),
    ],
)
def test_losses_descend_the_divergence_that_they_are_said_to(text: str, of) -> None:
    """Equation (24) with its k3, which descends forward KL; top-k of all tokens is the whole."""
    mdp = TokenMDP(3, 3, seed=4)
    torch.testing.assert_close(moments(mdp, text).mean, divergence_gradient(mdp, of), rtol=0, atol=1e-12)


def test_k1_as_a_loss_descends_nothing_and_k3_not_what_it_estimates() -> None:
    mdp = TokenMDP(3, 3, seed=4)
    assert float(moments(mdp, "k1-loss immediate").mean.abs().max()) < 1e-12
    apart = moments(mdp, "k3-loss immediate").mean - divergence_gradient(mdp, reverse)
    assert float(apart.norm()) > 0.05


def test_a_score_is_reinforce() -> None:
    mdp = TokenMDP(3, 3, seed=5)
    scores = torch.arange(len(mdp.probabilities)) ** 1.5
    estimator = Estimator(LLMR(), reward=Score(lambda rollouts: scores))
    rollouts, _ = mdp.responses()
    table = mdp.student.table.weight.detach().clone().requires_grad_()
    log_pi = table.log_softmax(dim=1)[mdp.table_rows(rollouts), rollouts.tokens].masked_fill(~rollouts.mask, 0.0)
    probability = log_pi.sum(dim=1).exp()
    (truth,) = torch.autograd.grad((probability * scores).sum(), table, retain_graph=True)
    torch.testing.assert_close(mdp.exact(estimator).mean, truth.flatten(), rtol=1e-12, atol=1e-12)
    length = Estimator(LLMR(), reward=TokenReward("length", lambda r: -r.mask.double()))
    (truth,) = torch.autograd.grad(-(probability * rollouts.lengths).sum(), table)
    torch.testing.assert_close(mdp.exact(length).mean, truth.flatten(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("baseline", "unbiased"),
    [
        ("leave-one-out", True), ("batch-mean", False), ("position-mean", False), ("minimum-variance", False),
        ("position-optimum", False), ("w-proxy", False), ("group-normalised", False),
    ],
)  # fmt: skip
def test_which_baselines_are_biased(baseline: str, unbiased: bool) -> None:
    mdp = TokenMDP(3, 2, seed=1)
    for text in (f"gap K=1 - {baseline}", f"kl K=1 exact expected - {baseline}"):
        size = float(moments(mdp, text).bias.abs().max())
        assert size < 1e-12 if unbiased else size > 1e-3, (text, size)


def test_the_means_of_two_rollouts_by_hand() -> None:
    """One token, two rollouts: the batch mean halves the gradient, group normalisation weighs pairs by sign alone."""
    mdp = TokenMDP(2, 1, seed=3)
    pi, gap = mdp.policy[0], mdp.teacher[0] - mdp.teacher[0].max()
    plain = moments(mdp, "gap K=1").mean
    torch.testing.assert_close(moments(mdp, "gap K=1 - batch-mean").mean, plain / 2, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(moments(mdp, "gap K=1 - position-mean").mean, plain / 2, rtol=1e-12, atol=1e-15)
    sign = torch.sign(gap[0] - gap[1])  # A = +-1/sqrt(2) where the two differ
    score = torch.tensor([1.0, -1.0], dtype=torch.float64)
    expected = pi[0] * pi[1] * sign * score / 2**0.5
    torch.testing.assert_close(moments(mdp, "gap K=1 - group-normalised").mean, expected, rtol=1e-12, atol=1e-15)


def test_the_position_optimum_is_the_optimum() -> None:
    """With many rollouts it tends to the number that minimises the variance of one-token responses."""
    mdp = TokenMDP(3, 1, seed=7)
    pi, gap = mdp.policy[0], mdp.teacher[0] - mdp.teacher[0].max()
    power = 1 - 2 * pi + (pi**2).sum()
    best = float((pi * gap * power).sum() / (pi * power).sum())

    def trace(shift: float) -> float:
        return float((pi * (gap - shift) ** 2 * power).sum())

    assert trace(best) < min(trace(best + 0.01), trace(best - 0.01))
    counts = (torch.cumsum(pi, 0) * 3000).round().long()
    tokens = torch.zeros(3000, 1, dtype=torch.long)
    tokens[counts[0] : counts[1]], tokens[counts[1] :] = 1, 2
    ones = torch.ones(3000, 1, dtype=torch.bool)
    zero = torch.zeros(3000, dtype=torch.long)
    rollouts = Rollouts(zero[:, None], ones, tokens, ones, ones[:, 0], zero, torch.zeros(3000, 1, dtype=torch.float64))
    (estimator,) = parse_estimators("gap K=1 - position-optimum")
    evidence = gather(mdp.student, mdp.teacher_model, rollouts, estimators=[estimator], score_norms=False)
    evidence = replace(evidence, score_norms=evidence.logit_power)
    weights, _ = estimator.coefficients(evidence)
    shift = gap[tokens] - weights
    assert float(shift.std()) < 1e-12 and float(shift[0, 0]) == pytest.approx(best, abs=2e-3)


def test_thinning_is_unbiased_and_its_variance_is_that_of_its_draws() -> None:
    mdp = TokenMDP(3, 4, seed=6)
    plain, thin = moments(mdp, "gap K=1"), moments(mdp, "gap thinning(3)")
    torch.testing.assert_close(thin.mean, plain.mean, rtol=0, atol=1e-12)
    extra = 0.0  # (k - 1) E|sum_t u_{t+j} s_t|^2, lag by lag
    for lag in range(1, 4):
        both = [moments(mdp, f"gap lags({', '.join(['1'] + ['0'] * (lag - 1) + [w])})") for w in ("1", "-1")]
        none = moments(mdp, "gap immediate")
        extra += 2 * ((both[0].second_moment + both[1].second_moment) / 2 - none.second_moment)
    assert thin.trace == pytest.approx(plain.trace + extra, rel=1e-10)


def test_corrections_off_policy() -> None:
    """Responses by another policy: the sequence ratio mends everything, the token ratio the immediate terms."""
    mdp = TokenMDP(3, 3, seed=8)
    other = torch.randn(mdp.policy.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for text in ("gap K=1", "gap K=1 exact expected", "kl immediate centred", "kl geometric(0.5) exact"):
        reward, rest = text.split(" ", 1)
        truth = moments(mdp, text).mean
        off = moments(mdp, f"{reward} {rest} sequence-ratio", behaviour=other)
        torch.testing.assert_close(off.mean, truth, rtol=0, atol=1e-12)
        assert float((moments(mdp, text, behaviour=other).mean - truth).abs().max()) > 1e-3
    own = [moments(mdp, f"kl immediate {word} ratio", behaviour=other).mean for word in ("sampled", "centred", "exact")]
    for mean in own[:2]:
        torch.testing.assert_close(mean, own[2], rtol=0, atol=1e-12)
    table = mdp.student.table.weight.detach().clone().requires_grad_()
    log_pi, log_p = table.log_softmax(dim=1), mdp.teacher.log_softmax(dim=1)
    total = 0.0
    for response in responses(mdp):
        rows = [row_of(mdp, response[:t]) for t in range(len(response))]
        reach = other.log_softmax(dim=1)[rows, list(response)].sum().exp()
        total = total - reach * reverse(log_pi[rows], log_p[rows]).sum()
    (truth,) = torch.autograd.grad(total, table)
    torch.testing.assert_close(own[2], truth.flatten(), rtol=0, atol=1e-12)
    for word in ("ppo-clip(0.2)", "truncated(1)"):  # on-policy neither does anything
        torch.testing.assert_close(moments(mdp, f"gap K=1 {word}").mean, moments(mdp, "gap K=1").mean)
        bias = moments(mdp, f"kl immediate {word}", behaviour=other).mean - own[0]
        assert float(bias.abs().max()) > 1e-3


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 10_000), st.sampled_from(["gap", "kl", "jsd(0.5)", "k3-loss"]), st.integers(2, 3), st.integers(1, 3)
)
def test_exact_immediate_sums_cannot_raise_the_variance_of_a_table_of_prefixes(
    seed, reward, vocabulary, horizon
) -> None:
    """Theory, section 8: scores of different positions are orthogonal there, and the kernel is immediate."""
    mdp = TokenMDP(vocabulary, horizon, seed=seed, teacher_scale=2.0)
    sampled, exact = (moments(mdp, f"{reward} immediate {word}").trace for word in ("sampled", "exact"))
    assert exact <= sampled * (1 + 1e-9) + 1e-12


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["prefix", "last-token"]))
def test_the_variance_saved_is_what_the_identity_says(seed, state) -> None:
    """(23'): sum_t E|D_t|^2 + 2 sum_t E<D_t, g'>, with g' = g - sum_t D_t from the definition of D_t."""
    mdp = TokenMDP(3, 3, seed=seed, state=state)
    sampled, exact = (moments(mdp, f"gap K=1 {word}").trace for word in ("sampled", "exact"))
    rollouts, _ = mdp.responses()
    states, prefix, share = mdp.table_rows(rollouts), mdp.tree.prefix_ids(rollouts.tokens), mdp.probabilities
    u = mdp.teacher - mdp.teacher.amax(dim=1, keepdim=True)
    pi = mdp.student.table.weight.detach().softmax(dim=1)
    squares, noise = 0.0, torch.zeros(len(share), *pi.shape, dtype=torch.float64)
    for t in range(3):
        row, y, table = states[:, t], rollouts.tokens[:, t], u[prefix[:, t]]
        score = torch.nn.functional.one_hot(y, 3).double() - pi[row]
        mean = (pi[row] * table).sum(dim=1, keepdim=True)
        d = (table.gather(1, y[:, None]) * score - pi[row] * (table - mean)) * rollouts.mask[:, t, None]
        squares += float(share @ (d**2).sum(dim=1))
        noise[torch.arange(len(share)), row] += d
    g = mdp.gradients(LLMR(), "teacher-value")
    without = g - noise.flatten(1)
    mean = share @ without
    assert float(share @ (without**2).sum(dim=1)) - float(mean @ mean) == pytest.approx(exact, rel=1e-9, abs=1e-12)
    cross = float(share @ (noise.flatten(1) * without).sum(dim=1))
    assert sampled - exact == pytest.approx(squares + 2 * cross, rel=1e-9, abs=1e-11)


def test_exact_sums_can_raise_the_variance() -> None:
    for kernel, factor in (("immediate", 16), ("K=1", 1.8)):
        mdp = exact_raising_mdp(kernel)
        sampled, exact = (moments(mdp, f"kl {kernel} {word}") for word in ("sampled", "exact"))
        torch.testing.assert_close(sampled.mean, exact.mean, rtol=0, atol=1e-12)
        assert exact.trace > factor * sampled.trace
    with pytest.raises(ValueError, match="'immediate' or 'K=1'"):
        exact_raising_mdp("K=2")


def test_the_student_as_it_is_now_is_enumerated() -> None:
    mdp, fresh = TokenMDP(3, 2, seed=0), TokenMDP(3, 2, seed=0)
    moments(mdp, "kl K=1 exact")
    for one in (mdp, fresh):
        with torch.no_grad():
            one.student.table.weight.mul_(0.5)
    assert moments(mdp, "kl K=1 exact").trace == moments(fresh, "kl K=1 exact").trace


def test_centring_and_an_expected_future_can_raise_it_too() -> None:
    mdp = TokenMDP(3, 3, seed=1, prompts=2)
    assert moments(mdp, "kl immediate centred").trace > 2 * moments(mdp, "kl immediate").trace
    mdp = TokenMDP(2, 3, seed=202, state="last-token", teacher_scale=2.0)
    assert moments(mdp, "gap K=1 expected").trace > 4 * moments(mdp, "gap K=1").trace


def test_what_cannot_be_enumerated_is_said() -> None:
    mdp = TokenMDP(3, 4, seed=0)
    with pytest.raises(ValueError, match="too many to enumerate"):
        moments(mdp, "gap K=1 - leave-one-out", rollouts_per_prompt=4)
    with pytest.raises(ValueError, match="rollouts_per_prompt of 2 or more; got 1"):
        moments(mdp, "gap K=1 - leave-one-out", rollouts_per_prompt=1)
    with pytest.raises(ValueError, match="not enumerated"):
        moments(mdp, "gap thinning(2) - leave-one-out")
    with pytest.raises(ValueError, match="which has its own"):
        mdp.exact(Estimator(KStep(1)), "teacher-value")
