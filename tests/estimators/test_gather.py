"""Evidence against sums written out, whatever the block size, action set and padding; bad input is named."""

from __future__ import annotations

import warnings
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from kvar.estimators import Evidence, NextTokenReward, Terms, TokenReward, gather, parse_estimators, with_references
from kvar.gradients import gradient_moments
from kvar.rollouts import Policy, Rollouts, sample, score, token_logits
from tests.cases import ragged_prompts, tiny_gpt2, tiny_t5

POLICY = Policy(size=15, ends=(1,), forbidden=(4,), forbidden_first=(1, 5))


def drawn(student: Any, rollouts_per_prompt: int = 2, policy: Policy = POLICY) -> Rollouts:
    options = {"rollouts_per_prompt": rollouts_per_prompt, "max_new_tokens": 5, "seed": 0, "policy": policy}
    return sample(student, ragged_prompts(), None, **options)


def case(make: Any = tiny_t5) -> tuple[Any, Any, Rollouts]:
    student, teacher = make(seed=0).double(), make(seed=1).double()
    return student, teacher, drawn(student)


def allowed(t: int) -> list[int]:
    return [a for a in range(15) if a != 4 and not (t == 0 and a in (1, 5))]


@pytest.mark.parametrize("make", [tiny_t5, tiny_gpt2])
@pytest.mark.parametrize("options", [{}, {"micro_batch": 2}, {"max_logits": 200}])
def test_rewards_and_their_expectations_are_sums_over_the_action_set(make: Any, options: dict) -> None:
    student, teacher, rollouts = case(make)
    found = gather(student, teacher, rollouts, **options)
    bare = replace(rollouts, policy=None)
    with torch.no_grad():
        s, f = token_logits(student, bare), token_logits(teacher, bare)
    for i in range(len(rollouts)):
        for t in range(rollouts.tokens.shape[1]):
            if not rollouts.mask[i, t]:
                for held in (*found.sampled.values(), *found.expected.values(), found.log_probs, found.logit_power):
                    assert float(held[i, t]) == 0
                continue
            actions, y = allowed(t), int(rollouts.tokens[i, t])
            pi, p = s[i, t, actions].softmax(0), f[i, t, actions].softmax(0)
            place = actions.index(y)
            gap = f[i, t, actions] - f[i, t, actions].max()
            kl = p.log() - pi.log()
            for name, u in (("gap", gap), ("kl", kl)):
                assert float(found.sampled[name][i, t]) == pytest.approx(float(u[place]), rel=1e-9)
                assert float(found.expected[name][i, t]) == pytest.approx(float(pi @ u), rel=1e-9)
            assert float(found.log_probs[i, t]) == pytest.approx(float(pi[place].log()), rel=1e-9)
            power = 1 - 2 * float(pi[place]) + float(pi @ pi)
            assert float(found.logit_power[i, t]) == pytest.approx(power, rel=1e-9)
    values = score(teacher, rollouts)
    assert found.values is not None
    torch.testing.assert_close(found.values.q, values.q, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.values.v, values.v, rtol=1e-9, atol=1e-9)


def test_nothing_is_left_behind_and_dropout_is_off() -> None:
    student, teacher, rollouts = case()
    student.train()
    teacher.config.dropout_rate = 0.5
    state = torch.get_rng_state()
    first = gather(student, teacher, rollouts)
    assert student.training and torch.equal(state, torch.get_rng_state())
    assert torch.equal(first.log_probs, gather(student.eval(), teacher, rollouts).log_probs)


def test_no_more_than_one_block_of_the_teachers_logits_exists() -> None:
    student, teacher, rollouts = case()
    asked: list[tuple[int, ...]] = []

    def logits(some: Rollouts) -> Tensor:
        with torch.no_grad():
            found = token_logits(teacher, replace(some, policy=None))
        asked.append(tuple(found.shape))
        return found

    estimators = parse_estimators("kl immediate exact, gap K=1 exact expected, jsd(0.5) immediate exact")
    evidence = gather(student, logits, rollouts, estimators=estimators, micro_batch=2)
    assert {shape[0] for shape in asked} == {2}
    asked.clear()
    found = gradient_moments(student, rollouts, (evidence, estimators), micro_batch=2)
    assert {shape[0] for shape in asked} == {2}
    truth = gather(student, teacher, rollouts, estimators=estimators)
    expected = gradient_moments(student, rollouts, (truth, estimators))
    torch.testing.assert_close(found.pair, expected.pair, rtol=1e-9, atol=1e-12)


def test_soft_values_and_centres() -> None:
    student, teacher, rollouts = case()
    found = gather(student, teacher, rollouts, value="soft", centre="logsumexp")
    values = score(teacher, rollouts, value="soft", centre="logsumexp")
    torch.testing.assert_close(found.sampled["gap"], -values.gap, rtol=1e-9, atol=1e-9)
    assert found.values is not None
    torch.testing.assert_close(found.values.v, values.v, rtol=1e-9, atol=1e-9)


def test_only_what_estimators_need_is_gathered() -> None:
    student, teacher, rollouts = case()
    found = gather(student, teacher, rollouts, estimators=parse_estimators("K=1, kl immediate - position-optimum"))
    assert set(found.sampled) == {"kl"} and found.score_norms is not None
    assert set(gather(student, None, rollouts, score=lambda r: r.lengths).sampled) == {"score"}
    with pytest.raises(ValueError, match=r"the evidence holds no reward 'gap' but kl"):
        gradient_moments(student, rollouts, (found, parse_estimators("gap K=1")))
    with pytest.raises(ValueError, match="reward 'kl' needs a teacher"):
        gather(student, None, rollouts, estimators=parse_estimators("kl K=1"))
    with pytest.raises(ValueError, match=r"'K=1' needs the teacher's values"):
        gradient_moments(student, rollouts, (gather(student, None, rollouts), parse_estimators("K=1")))
    plain = gather(student, teacher, rollouts)
    with pytest.raises(
        ValueError, match=r"baseline 'position-optimum' needs score norms: gather\(..., score_norms=True"
    ):
        gradient_moments(student, rollouts, (plain, parse_estimators("kl K=1 - position-optimum")))


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (lambda r: [float("nan")] + [1.0] * 5, "is nan for response 0: every score must be finite"),
        (lambda r: [1.0, 2.0], r"one number for each of N = 6 responses; got shape \(2,\)"),
        (lambda r: [0.5] * 6, "is 0.5 for all 6 responses, so it has no gradient"),
        (lambda r: "six", "must give one number a response; got str"),
        (lambda r: None, "must give one number a response; got NoneType"),
    ],
)
def test_bad_scores(given: Any, match: str) -> None:
    student, teacher, rollouts = case()
    with pytest.raises(ValueError, match=match):
        gather(student, teacher, rollouts, score=given)


def test_a_score_is_paid_at_the_last_token() -> None:
    student, _, rollouts = case()
    found = gather(student, None, rollouts, score=lambda r: [1, 2, 3, 4, 5, 6]).sampled["score"]
    for i, length in enumerate(rollouts.lengths.tolist()):
        assert found[i].tolist() == [0.0] * (length - 1) + [i + 1.0] + [0.0] * (rollouts.tokens.shape[1] - length)


def test_bad_token_rewards() -> None:
    student, _, rollouts = case()
    for function, match in (
        (lambda r: r.lengths, r"must give a tensor of shape \(N, T\)"),
        (lambda r: torch.full(r.tokens.shape, float("inf")), "is inf at row 0, position 0"),
    ):
        with pytest.raises(ValueError, match=match):
            gather(student, None, rollouts, rewards=[TokenReward("mine", function)])


def test_a_teacher_that_gives_its_best_tokens_alone() -> None:
    student, teacher, rollouts = case()

    def few(some: Rollouts) -> Tensor:
        with torch.no_grad():
            logits = token_logits(teacher, replace(some, policy=None))
        kept = logits.topk(3, dim=-1).indices
        kept = torch.cat([kept, some.tokens.masked_fill(~some.mask, 0)[..., None]], dim=-1)
        return torch.full_like(logits, -torch.inf).scatter(-1, kept, logits.gather(-1, kept))

    for text in ("kl immediate exact", "gap K=1", "jsd(0.5) immediate"):
        (estimator,) = parse_estimators(text)
        if text.startswith("jsd"):  # finite where the teacher gives nothing
            gather(student, few, rollouts, estimators=[estimator])
            continue
        with pytest.raises(ValueError, match=r"not finite for token \d+ at row 0, position 0, which the student draws"):
            gather(student, few, rollouts, estimators=[estimator])


def test_a_token_that_the_teacher_never_emits() -> None:
    student, teacher, rollouts = case()
    teacher.generation_config.suppress_tokens = [7]
    if bool((rollouts.tokens == 7).any()):
        rollouts = replace(rollouts, tokens=rollouts.tokens.masked_fill(rollouts.tokens == 7, 8))
    with pytest.raises(ValueError, match="not finite for token 7 at row 0, position 0"):
        gather(student, teacher, rollouts)
    joined = replace(rollouts, policy=POLICY.joined(Policy(forbidden=(7,))))
    gather(student, teacher, joined)


def test_widths_sizes_and_emptiness() -> None:
    student, teacher, rollouts = case()
    with pytest.raises(ValueError, match="they must be over the same tokens"):
        gather(student, tiny_t5(vocab_size=21).double(), replace(rollouts, policy=None))
    for name in ("micro_batch", "max_logits"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1; got 0"):
            gather(student, teacher, rollouts, **{name: 0})
    with pytest.raises(ValueError, match="rollouts is empty"):
        gather(student, teacher, rollouts[[]])


def test_a_reward_of_the_wrong_shape() -> None:
    class Odd(NextTokenReward):
        name = "odd"

        def table(self, teacher: Tensor, student: Tensor) -> Tensor:
            return teacher

        def weighted(self, teacher: Tensor, student: Tensor) -> Tensor:
            return teacher[..., :1]

    student, teacher, rollouts = case()
    with pytest.raises(ValueError, match="'odd' must give a number for every token"):
        gather(student, teacher, rollouts, rewards=[Odd()])


def evidence() -> tuple[Any, Rollouts, Evidence]:
    student, teacher, rollouts = case()
    return student, rollouts, gather(student, teacher, rollouts)


def test_corrections_need_behaviour_probabilities() -> None:
    student, teacher, rollouts = case()
    for given, what in ((torch.zeros_like, "all zero"), (lambda x: torch.full_like(x, float("nan")), "not finite")):
        blind = replace(rollouts, log_probs=given(rollouts.log_probs))
        with pytest.raises(ValueError, match=f"'ratio' needs Rollouts.log_probs.*they are {what}"):
            gradient_moments(student, blind, (gather(student, teacher, blind), parse_estimators("kl immediate ratio")))


@pytest.mark.parametrize("baseline", ["leave-one-out", "group-normalised", "w-proxy"])
def test_one_rollout_of_a_prompt_is_not_enough(baseline: str) -> None:
    student, teacher, _ = case()
    rollouts = drawn(student, 1)
    found, estimators = gather(student, teacher, rollouts), parse_estimators(f"kl K=1 - {baseline}")
    with pytest.raises(ValueError, match=f"{baseline}' needs two or more rollouts of a prompt"):
        gradient_moments(student, rollouts, (found, estimators))


def test_the_teacher_is_not_asked_of_references() -> None:
    student, rollouts, found = evidence()
    asked: list[int] = []

    def counted(some: Rollouts) -> Tensor:
        asked.append(len(some))
        return found.teacher_logits(some)  # type: ignore[misc]

    terms = Terms.of(parse_estimators("kl immediate exact, K=2"), replace(found, teacher_logits=counted))
    joint = with_references(terms, rollouts[::2])
    n = len(rollouts)
    with torch.no_grad():
        logits = token_logits(student, joint.evidence.rollouts)
    flow = joint.weighted(torch.arange(len(joint.evidence)), logits)["kl"]
    assert sum(asked) == n
    assert not flow[n:].any()
    torch.testing.assert_close(flow[:n], found.weighted("kl", torch.arange(n), logits[:n]))


def test_evidence_of_other_rollouts_is_refused() -> None:
    student, rollouts, found = evidence()
    for change, match in (
        (rollouts[:4], "differ in prompt_ids"),
        (replace(rollouts, prompt_index=rollouts.prompt_index.flip(0)), "differ in prompt_index"),
        (replace(rollouts, policy=Policy(size=15)), "another policy"),
    ):
        with pytest.raises(ValueError, match=match):
            gradient_moments(student, change, (found, parse_estimators("kl immediate exact")))
    with pytest.raises(TypeError, match=r"a pair must be \(evidence, estimators\)"):
        gradient_moments(student, rollouts, (parse_estimators("K=1"), found))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="distinct names"):
        gradient_moments(student, rollouts, (found, []))
    with pytest.raises(TypeError, match=r"student must be a torch.nn.Module; got str"):
        gather("arithmetic-50k", None, rollouts)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"or a callable, logits -> \(E, N\); got SimpleNamespace"):
        gradient_moments(student, rollouts, SimpleNamespace())  # type: ignore[arg-type]


def test_a_teacher_of_its_best_tokens_alone_serves_the_reward_that_needs_no_more() -> None:
    student, teacher, rollouts = case()

    def few(some: Rollouts) -> Tensor:
        with torch.no_grad():
            logits = token_logits(teacher, replace(some, policy=None))
        best = logits.topk(4, dim=-1)
        return torch.full_like(logits, -torch.inf).scatter(-1, best.indices, best.values)

    estimators = parse_estimators("teacher-top-k(3) immediate exact")
    found = gather(student, few, rollouts, estimators=estimators)
    whole = gather(student, teacher, rollouts, estimators=estimators)
    assert found.values is None and whole.values is None
    torch.testing.assert_close(found.expected["teacher-top-k(3)"], whole.expected["teacher-top-k(3)"])
    with pytest.raises(ValueError, match="gives the logits of its best tokens alone"):
        gather(student, few, rollouts, estimators=parse_estimators("K=1, kl immediate exact"))


@pytest.mark.parametrize(
    ("temperature", "names", "warned"), [(1.0, "K=1", False), (1.5, "K=1", True), (1.5, "K=1 ratio", False)]
)
def test_rollouts_of_another_temperature_are_warned_of(temperature: float, names: str, warned: bool) -> None:
    student, teacher, _ = case()
    options = {"rollouts_per_prompt": 4, "max_new_tokens": 5, "seed": 0, "policy": POLICY}
    rollouts = sample(student, ragged_prompts(), None, temperature=temperature, **options)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        gather(student, teacher, rollouts, estimators=parse_estimators(names))
    assert any("another temperature" in str(w.message) for w in heard) is warned
