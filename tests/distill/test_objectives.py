"""Every objective against a slow, explicit computation; defects of the reference code that must stay absent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from kvar.distill import DistillationConfig
from kvar.distill.objectives import OBJECTIVES, Batch
from kvar.distill.objectives.ketchup import advantage_weights
from kvar.returns import KStep, returns
from kvar.rollouts import Rollouts, log_probs, sample, score, token_logits
from tests.models import ragged_prompts, tiny_gpt2, tiny_t5


def config(**changes: Any) -> DistillationConfig:
    return DistillationConfig(output_dir="unused", use_cpu=True, report_to="none", **changes)


@pytest.fixture(scope="module")
def batch() -> Batch:
    student = tiny_t5()
    samples = sample(student, ragged_prompts(), rollouts_per_prompt=2, max_new_tokens=7, seed=3)
    references = sample(tiny_t5(seed=5), ragged_prompts(), max_new_tokens=6, seed=8)
    return Batch(references, samples, 17)


def gradient(model: torch.nn.Module, loss: torch.Tensor) -> torch.Tensor:
    grads = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return torch.cat([g.flatten() for g in grads if g is not None])


def test_sft_is_the_mean_negative_log_likelihood(batch: Batch) -> None:
    student = tiny_t5()
    loss = OBJECTIVES["sft"].compute(student, None, batch, config()).value
    total, count = 0.0, 0
    log_p = token_logits(student, batch.references).log_softmax(-1)
    for i in range(len(batch.references)):
        for t in range(int(batch.references.lengths[i])):
            total -= float(log_p[i, t, batch.references.tokens[i, t]])
            count += 1
    assert float(loss) == pytest.approx(total / count, rel=1e-5)


def test_sft_label_smoothing_mixes_in_the_uniform(batch: Batch) -> None:
    student = tiny_t5()
    loss = OBJECTIVES["sft"].compute(student, None, batch, config(label_smoothing_factor=0.2)).value
    log_p = token_logits(student, batch.references).log_softmax(-1)
    target = torch.full_like(log_p, 0.2 / 17)
    target.scatter_add_(-1, batch.references.tokens[..., None], torch.full_like(log_p[..., :1], 0.8))
    expected = -(target * log_p).sum(-1)[batch.references.mask].mean()
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_kl_is_the_mean_divergence_and_zero_for_the_teacher_itself(batch: Batch) -> None:
    student, teacher = tiny_t5(), tiny_t5(seed=1)
    loss = OBJECTIVES["kl"].compute(student, teacher, batch, config()).value
    p, q = (token_logits(m, batch.references).softmax(-1) for m in (teacher, student))
    expected = (p * (p / q).log()).sum(-1)[batch.references.mask].mean()
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)
    assert float(OBJECTIVES["kl"].compute(teacher, teacher, batch, config()).value) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kernel", ["K=1", "K=2", "K=3 free", "immediate"])
def test_ketchup_gradient_is_minus_the_mean_of_return_times_score(batch: Batch, kernel: str) -> None:
    student, teacher = tiny_t5(), tiny_t5(seed=1)
    samples = batch.samples
    assert samples is not None
    loss = OBJECTIVES["ketchup"].compute(student, teacher, batch, config(kernel=kernel)).value
    found = gradient(student, loss)
    from kvar.returns import parse_kernel

    g = returns(score(teacher, samples), samples.mask, [parse_kernel(kernel)])[0]
    expected = torch.zeros_like(found)
    for i in range(len(samples)):  # rho = 1: the samples are the student's own
        for t in range(int(samples.lengths[i])):
            expected -= g[i, t] * gradient(student, log_probs(student, samples)[i, t])
    expected /= samples.mask.sum()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_llmr_is_ketchup_with_one_step(batch: Batch) -> None:
    student, teacher = tiny_t5(), tiny_t5(seed=1)
    one = OBJECTIVES["llmr"].compute(student, teacher, batch, config(kernel="K=4")).value
    two = OBJECTIVES["ketchup"].compute(student, teacher, batch, config(kernel="K=1")).value
    assert torch.equal(one, two)


def test_importance_weight_is_policy_over_behaviour_detached_and_clipped(batch: Batch) -> None:
    samples = batch.samples
    assert samples is not None
    log_pi = (samples.log_probs + 0.5).requires_grad_()
    advantages = torch.linspace(-3, 3, samples.tokens.numel()).view_as(samples.log_probs)
    plain = advantage_weights(advantages, log_pi, samples, config())
    torch.testing.assert_close(plain, (advantages * 0.5 * 1.0).mul(2).mul(torch.tensor(0.5).exp()) * samples.mask)
    assert not plain.requires_grad
    clipped = advantage_weights(advantages, log_pi, samples, config(importance_clip=1.2))
    torch.testing.assert_close(clipped, advantages * 1.2 * samples.mask)
    bounded = advantage_weights(advantages, log_pi, samples, config(return_clip=1.0))
    assert float(bounded.abs().max()) == 1.0  # the product is clipped, not the return
    off = advantage_weights(advantages, log_pi, samples, config(importance_weight=False, return_scale=0.1))
    torch.testing.assert_close(off, advantages * 0.1 * samples.mask)


def test_baselines_leave_no_gradient_of_their_own(batch: Batch) -> None:
    """Defect 3 of the reference code: a stray backward of the baseline leaks into the parameters' gradients."""
    student, teacher = tiny_t5(), tiny_t5(seed=1)
    for baseline in ("batch-mean", "teacher-value", "position-mean", "leave-one-out"):
        settings = config(baseline=baseline, rollouts_per_prompt=2)
        OBJECTIVES["ketchup"].compute(student, teacher, batch, settings)
        assert all(p.grad is None for model in (student, teacher) for p in model.parameters())


def test_padding_beside_longer_rows_changes_no_loss(batch: Batch) -> None:
    """Defect 4 of the reference code: padded rows read padding states (batch size 1 hides it)."""
    student, teacher = tiny_t5(), tiny_t5(seed=1)
    samples = batch.samples
    assert samples is not None
    together = gradient(student, OBJECTIVES["ketchup"].compute(student, teacher, batch, config()).value)
    alone = torch.zeros_like(together)
    for i in range(len(samples)):
        row = samples[[i]]
        n = int(row.lengths)
        cut = Rollouts(
            row.prompt_ids, row.prompt_mask, row.tokens[:, :n], row.mask[:, :n], row.finished, row.prompt_index,
            row.log_probs[:, :n],
        )  # fmt: skip
        loss = OBJECTIVES["ketchup"].compute(student, teacher, replace(batch, samples=cut), config()).value
        alone += gradient(student, loss) * n
    torch.testing.assert_close(together, alone / samples.mask.sum(), atol=1e-5, rtol=1e-4)


def test_student_and_teacher_score_the_same_positions() -> None:
    """Defect 6 of the reference code: the student's sequence is not shifted where the teacher's is."""
    model = tiny_gpt2()
    samples = sample(model, ragged_prompts(), rollouts_per_prompt=2, max_new_tokens=6, seed=1)
    values = score(model, samples, centre="logsumexp")
    torch.testing.assert_close(values.q, log_probs(model, samples).detach(), atol=1e-5, rtol=1e-5)


def test_token_mean_for_every_objective(batch: Batch) -> None:
    """Defect 7 of the reference code: KL is summed over a sequence where the others average."""
    student, teacher = tiny_t5(), tiny_t5(seed=1)
    double = Batch(*(r[list(range(len(r))) * 2] for r in (batch.references, batch.samples)), 17)  # type: ignore[arg-type, index, union-attr]
    for name, objective in OBJECTIVES.items():
        once = objective.compute(student, teacher, batch, config()).value
        twice = objective.compute(student, teacher, double, config()).value
        torch.testing.assert_close(once, twice, msg=name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": "ppo"}, "objective 'ppo' is unknown; choose one of: "),
        ({"kernel": "K=0"}, "k must be an integer of at least 1; got 0"),
        ({"temperature": 0.0}, "temperature must be positive in training; got 0.0"),
        ({"rollouts_per_prompt": 0}, "rollouts_per_prompt must be at least 1; got 0"),
        ({"baseline": "leave-one-out"}, "leave-one-out needs rollouts_per_prompt >= 2; got 1"),
        ({"baseline": "critic"}, "baseline 'critic' is unknown"),
    ],
)
def test_bad_settings_are_refused_before_any_work(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**change)


def test_kernel_spelled_out() -> None:
    assert KStep(4).name == config(kernel="K=4").kernel
