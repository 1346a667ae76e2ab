"""The training-side defects of the released code of KETCHUP and its relatives, each with a test that it is absent.

The two others, validation on the test file (2) and ``eval`` on a model's output (8), have theirs with the tasks.
"""

from __future__ import annotations

from math import log
from typing import Any

import pytest
import torch

from kvar.distill.data.dataset import Collator, build_dataset
from kvar.distill.objectives import Batch, Passes, count, parse_objective
from kvar.distill.step.responses import prepare_step
from kvar.estimators import Estimator, Evidence
from kvar.returns import Kernel, KStep, TokenValues, returns
from kvar.rollouts import Rollouts, log_probs, sample, score, token_logits
from kvar.tasks import ArithmeticTask
from tests.cases import MODELS, ragged_prompts, tiny_gpt2, tiny_t5
from tests.distill.objectives.objective_cases import config, gradient
from tests.distill.objectives.table_models import EOS, WORD, Table, written
from tests.returns.returns_reference import k_step

TASK = ArithmeticTask(1, 1)
TOKENIZER: Any = TASK.build_tokenizer()


def prepared(step: int = 0, **changes: Any) -> tuple[Batch, Any]:
    """One training step's batch of four prompts, as the trainer prepares it, and the student."""
    student, teacher = (tiny_t5(vocab_size=len(TOKENIZER), seed=seed) for seed in (0, 1))
    rows = build_dataset(TASK.examples("train", 4), TOKENIZER)
    settings = config(max_new_tokens=6, **changes)
    (batch,) = prepare_step(
        [Collator(TOKENIZER.pad_token_id)([rows[i] for i in range(4)])],
        student=student, teacher=teacher, teacher_responses=None, mixture=settings.mixture, settings=settings,
        tokenizer=TOKENIZER, step=step, on_policy=False,
    )  # fmt: skip
    return batch, student


def advantages_of(rollouts: Rollouts, values: TokenValues, kernel: Kernel) -> torch.Tensor:
    """Of K-step returns without a baseline, as a step of training forms them."""
    unknown = torch.zeros(rollouts.tokens.shape, dtype=torch.float64)
    return Estimator(kernel).coefficients(Evidence(rollouts, {}, {}, {}, unknown, unknown, values))[0]


def test_defect_1_rollouts_are_sampled_with_the_flags_given() -> None:
    """There the flags are dropped on the way to ``generate``, so that every response is the greedy one."""
    batch, student = prepared(rollouts_per_prompt=8, temperature=1.3, top_k=5)
    drawn = batch.responses["student"]
    for prompt in range(4):
        assert len({tuple(row) for row in drawn.tokens[drawn.prompt_index == prompt].tolist()}) > 4
    other = prepared(step=1, rollouts_per_prompt=8, temperature=1.3, top_k=5)[0].responses["student"]
    assert not torch.equal(drawn.tokens, other.tokens[:, : drawn.tokens.shape[1]])
    with torch.no_grad():
        logits = token_logits(student, drawn) / 1.3
    best = logits.topk(5, dim=-1)
    assert bool((drawn.tokens[..., None] == best.indices).any(-1)[drawn.mask].all())
    behaviour = logits.gather(-1, drawn.tokens[..., None])[..., 0] - best.values.logsumexp(-1)
    torch.testing.assert_close(drawn.log_probs[drawn.mask], behaviour[drawn.mask], rtol=0, atol=1e-4)


def test_defect_3_the_minimum_variance_baseline_is_the_true_one() -> None:
    """There sum log p is differentiated with respect to itself, so every |s|^2 is 1 and b is the mean return."""
    batch, student = prepared(rollouts_per_prompt=4, baseline="minimum-variance", kernel="K=1")
    drawn, values = batch.responses["student"], batch.values
    assert values is not None
    plain = returns(values, drawn.mask, [KStep(1)])[0]
    b = (plain - batch.advantages["ketchup"])[drawn.mask]
    head = torch.nn.Parameter(student.get_output_embeddings().weight.detach().clone())
    student.get_output_embeddings().weight = head  # the output layer alone, were it tied
    log_p, total, weighted = log_probs(student, drawn), 0.0, 0.0
    for i, t in drawn.mask.nonzero().tolist():
        power = float(torch.autograd.grad(log_p[i, t], head, retain_graph=True)[0].square().sum())
        total, weighted = total + power, weighted + power * float(plain[i, t])
    torch.testing.assert_close(b, torch.full_like(b, weighted / total), rtol=1e-4, atol=1e-5)
    assert abs(weighted / total - float(plain[drawn.mask].mean())) > 1e-3


@pytest.mark.parametrize("baseline", ["minimum-variance", "batch-mean", "position-mean", "leave-one-out"])
def test_defect_3_no_baseline_leaves_a_gradient_behind(baseline: str) -> None:
    """There the baseline's own backward adds to the parameters' gradients."""
    batch, student = prepared(rollouts_per_prompt=2, baseline=baseline)
    assert all(p.grad is None for p in student.parameters())
    assert not batch.advantages["ketchup"].requires_grad
    settings = config(rollouts_per_prompt=2, baseline=baseline)
    loss, _ = settings.mixture.loss(Passes(student, None, batch, settings), settings)
    found = gradient(student, loss)
    drawn = batch.responses["student"]
    log_pi = log_probs(student, drawn)
    rho = (log_pi.detach() - drawn.log_probs).exp()  # constants but for log pi
    expected = gradient(student, -(rho * batch.advantages["ketchup"] * log_pi).sum() / drawn.mask.sum())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert all(p.grad is None for p in student.parameters())


@pytest.mark.parametrize("k", [1, 3, 4, 9])
@pytest.mark.parametrize("finished", [True, False])
def test_defect_4_no_value_wraps_round_the_end(k: int, finished: bool) -> None:
    """There a circular roll of V brings the first values behind the last where K >= T or EOS is missing."""
    generator = torch.Generator().manual_seed(0)
    v = torch.rand(1, 4, generator=generator, dtype=torch.float64) + 100.0  # a wrapped one would show
    q = v - torch.rand(1, 4, generator=generator, dtype=torch.float64)
    found = advantages_of(written([WORD] * 4), TokenValues(q, v), KStep(k))
    expected = torch.tensor([k_step(q[0].tolist(), v[0].tolist(), k, "anchored")], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    # and in a rollout that the length limit cut, from a teacher's own logits
    teacher = tiny_gpt2(seed=1).double()
    rows = sample(tiny_gpt2(), ragged_prompts(), max_new_tokens=4, seed=2)
    picked = rows[[int((rows.finished == finished).nonzero()[0])]] if bool((rows.finished == finished).any()) else rows
    values = score(teacher, picked)
    for i in range(len(picked)):
        n = int(picked.lengths[i])
        row = returns(values, picked.mask, [KStep(k)])[0, i]
        want = k_step(values.q[i, :n].tolist(), values.v[i, :n].tolist(), k, "anchored")
        torch.testing.assert_close(row[:n], torch.tensor(want, dtype=row.dtype), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["t5", "gpt2", "llama"])
def test_defect_4_padded_rows_read_no_padding_states(name: str) -> None:
    """There batch size 1 hides it: a padded row's last value is read off the padding behind it."""
    student, teacher = MODELS[name](), MODELS[name](seed=1)
    drawn = sample(student, ragged_prompts(), rollouts_per_prompt=3, max_new_tokens=9, seed=3)
    assert len(set(drawn.lengths.tolist())) > 1 or name == "t5"
    settings = config(kernel="K=2")

    def loss_of(rollouts: Rollouts) -> torch.Tensor:
        values = score(teacher, rollouts)
        found = advantages_of(rollouts, values, KStep(2))
        batch = Batch({"student": rollouts}, {"student": count(rollouts.mask)}, values, {"ketchup": found})
        return settings.mixture.loss(Passes(student, teacher, batch, settings), settings)[0]

    together, alone = gradient(student, loss_of(drawn)), 0
    for i in range(len(drawn)):
        row = drawn[[i]]
        n, s = int(row.lengths), int(row.prompt_mask.sum())
        cut = Rollouts(
            row.prompt_ids[:, :s], row.prompt_mask[:, :s], row.tokens[:, :n], row.mask[:, :n], row.finished,
            row.prompt_index, row.log_probs[:, :n],
        )  # fmt: skip
        alone = alone + n * gradient(student, loss_of(cut))
    torch.testing.assert_close(together, alone / drawn.mask.sum(), rtol=1e-4, atol=1e-5)


# Tables for JS: the teacher's response visits the start alone, the student's the start and the state after WORD.
P = torch.tensor([[4.0, 2.0, 2.0], [1.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64) / 8
Q = torch.tensor([[1.0, 3.0, 4.0], [1.0, 1.0, 1.0], [2.0, 2.0, 4.0]], dtype=torch.float64) / 8


def kl(a: torch.Tensor, b: torch.Tensor) -> float:
    return sum(float(x) * log(float(x) / float(y)) for x, y in zip(a, b, strict=True))


def js_batch(teachers: Rollouts, students: Rollouts) -> Batch:
    counts = {"teacher": count(teachers.mask), "student": count(students.mask)}
    return Batch({"teacher": teachers, "student": students}, counts)  # type: ignore[arg-type]


def test_defect_5_js_has_the_teacher_in_its_teachers_half() -> None:
    """There both halves are KL(student || mixture)."""
    teacher, student, settings = Table(P.log()), Table(Q.log()), config(objective="js")
    batch = js_batch(written([EOS]), written([WORD, EOS]))
    value, _ = settings.mixture.loss(Passes(student, teacher, batch, settings), settings)
    m = (P + Q) / 2
    teachers_half = kl(P[0], m[0])
    students_half = (kl(Q[0], m[0]) + kl(Q[2], m[2])) / 2
    assert float(value) == pytest.approx((teachers_half + students_half) / 2, rel=1e-12)
    assert abs(kl(P[0], m[0]) - kl(Q[0], m[0])) > 0.01


def test_defect_6_the_students_responses_are_shifted_as_the_teachers_are() -> None:
    """There the student's own sequence is scored one place off: by the state after the token instead of before it."""
    teacher, student, settings = Table(P.log()), Table(Q.log()), config(objective="js")
    batch = js_batch(written([WORD, EOS]), written([WORD, EOS]))
    value, _ = settings.mixture.loss(Passes(student, teacher, batch, settings), settings)
    m, states = (P + Q) / 2, (0, WORD)  # the states that both responses are drawn in
    expected = sum(kl(P[s], m[s]) + kl(Q[s], m[s]) for s in states) / 4
    assert float(value) == pytest.approx(expected, rel=1e-12)
    (found,) = torch.autograd.grad(value, student.table)
    assert bool((found[EOS] == 0).all())  # no token is drawn in the state after EOS
    assert bool((found[0] != 0).any()) and bool((found[WORD] != 0).any())
    for model in (tiny_t5(), tiny_gpt2()):  # with the same model on both sides, q is log pi in every place
        drawn = sample(model, ragged_prompts(), rollouts_per_prompt=2, max_new_tokens=6, seed=1)
        values = score(model, drawn, centre="logsumexp")
        torch.testing.assert_close(values.q, log_probs(model, drawn).detach(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(values.q, drawn.log_probs, rtol=1e-5, atol=1e-5)  # and as it was sampled


@pytest.mark.parametrize("name", ["sft", "seqkd", "kl", "reverse-kl", "js", "tvd", "gkd", "llmr", "ketchup"])
def test_defect_7_every_objective_is_a_mean_over_tokens(name: str) -> None:
    """There KL is summed over a sequence's tokens where the other objectives average."""
    same = torch.tensor([4.0, 1.0, 3.0], dtype=torch.float64).log().expand(3, 3)
    teacher, student = Table(same), Table(torch.zeros(3, 3))
    settings, losses = config(objective=name), []
    for response in ([WORD], [WORD] * 8):
        rollouts = written(response)
        values = TokenValues(torch.ones(1, len(response)), torch.ones(1, len(response)))  # returns of 1 at any length
        found = dict.fromkeys(("data", "student", "teacher"), rollouts)
        estimators = parse_objective(name).estimators(settings)
        advantage = {o: returns(values, rollouts.mask, [e.kernel])[0].double() for o, e in estimators.items()}
        batch = Batch(found, {source: count(rollouts.mask) for source in found}, values, advantage)  # type: ignore[arg-type]
        losses.append(float(settings.mixture.loss(Passes(student, teacher, batch, settings), settings)[0]))
    assert losses[0] != 0
    assert losses[1] == pytest.approx(losses[0], rel=1e-12)
