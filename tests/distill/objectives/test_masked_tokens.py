"""Teachers and students that rule tokens out by logits of -inf: values and gradients by hand."""

from __future__ import annotations

from functools import partial
from math import log
from typing import Any

import pytest
import torch
from torch import Tensor

from kvar.distill.objectives import Passes
from kvar.distill.objectives.on_policy.entropy import entropy, uniform_cross_entropy
from kvar.distill.objectives.stepwise import divergences as d
from tests.distill.objectives.objective_cases import config
from tests.distill.objectives.table_models import EOS, WORD, Table, written
from tests.distill.objectives.test_by_hand import batch_of

INF = float("inf")
DIVERGENCES = {
    "kl": d.kl,
    "reverse": d.reverse_kl,
    "js": d.jensen_shannon,
    "jsd": partial(d.generalised_jsd, beta=0.3),
    "teacher's half": lambda p, q: d.mixture_kl(p, p, q),
    "student's half": lambda p, q: d.mixture_kl(q, p, q),
    "tvd": d.total_variation,
}


def logs(*weights: float) -> Tensor:
    return torch.tensor(weights, dtype=torch.float64).log()


# p = (1/2, 1/2, 0) and q = (1/4, 1/4, 1/2); their mean m = (3/8, 3/8, 1/4).
P, Q = (0.5, 0.5, 0.0), (0.25, 0.25, 0.5)
P_TO_M, Q_TO_M = log(4 / 3), 0.5 * log(2 / 3) + 0.5 * log(2)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("kl", log(2)),
        ("reverse", INF),
        ("js", (P_TO_M + Q_TO_M) / 2),
        # m = 0.3 p + 0.7 q = (0.325, 0.325, 0.35)
        ("jsd", 0.3 * log(0.5 / 0.325) + 0.7 * (0.5 * log(0.25 / 0.325) + 0.5 * log(0.5 / 0.35))),
        ("teacher's half", P_TO_M),
        ("student's half", Q_TO_M),
        ("tvd", 0.5),
    ],
)
def test_a_teacher_that_masks_a_token(name: str, expected: float) -> None:
    assert DIVERGENCES[name](logs(*P), logs(*Q)).item() == pytest.approx(expected, rel=1e-12)


def test_gradients_of_a_masking_teacher() -> None:
    """d/dz KL(p || softmax z) = q - p; d/dz TV = sum_a sign(q_a - p_a) dq_a / 2, here q_3 (onehot_3 - q)."""
    for divergence, expected in (
        (d.kl, [-0.25, -0.25, 0.5]),
        (d.total_variation, [-0.125, -0.125, 0.25]),
    ):
        z = logs(*Q).requires_grad_()
        (slope,) = torch.autograd.grad(divergence(logs(*P), z.log_softmax(-1)), z)
        assert slope.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_tokens_that_both_mask_change_nothing(name: str) -> None:
    """Value and both gradients are those of the vocabulary without the tokens."""
    generator = torch.Generator().manual_seed(0)
    p, q = (2 * torch.randn(4, 5, generator=generator, dtype=torch.float64) for _ in range(2))

    def values(*logits: Tensor) -> tuple[Tensor, ...]:
        leaves = [x.clone().requires_grad_() for x in logits]
        value = DIVERGENCES[name](*(x.log_softmax(-1) for x in leaves))
        return value.detach(), *torch.autograd.grad(value.sum(), leaves)

    wide = [torch.cat([x[:, :2], torch.full_like(x[:, :2], -INF), x[:, 2:]], dim=1) for x in (p, q)]
    small, large = values(p, q), values(*wide)
    torch.testing.assert_close(large[0], small[0], rtol=1e-12, atol=1e-14)
    for with_them, without in zip(large[1:], small[1:], strict=True):
        torch.testing.assert_close(with_them[:, [0, 1, 4, 5, 6]], without, rtol=1e-11, atol=1e-14)
        assert not with_them[:, 2:4].any()


@pytest.mark.parametrize("name", DIVERGENCES)
def test_gradients_of_one_sided_masks_are_finite_differences(name: str) -> None:
    """The teacher masks token 3; for reverse KL, which would be infinite, the student does."""
    p, q = torch.tensor([0.0, 1.0, -1.0, -INF]).double(), torch.tensor([0.3, -0.2, 0.5, 0.1]).double()
    if name == "reverse":
        p, q = q, p  # the student must not allow what the teacher masks

    def value(z: Tensor) -> Tensor:
        return DIVERGENCES[name](p.log_softmax(-1), z.log_softmax(-1))

    z = q.clone().requires_grad_()
    (slope,) = torch.autograd.grad(value(z), z)
    for i in range(4):
        if q[i] == -INF:
            assert float(slope[i]) == 0
            continue
        step = torch.zeros(4, dtype=torch.float64)
        step[i] = 1e-6
        assert float(slope[i]) == pytest.approx(float(value(q + step) - value(q - step)) / 2e-6, abs=1e-9)


def test_a_student_that_masks_what_the_teacher_all_but_rules_out_is_infinitely_far() -> None:
    """exp(-2000) is 0 in float64, and 0 * inf would be NaN."""
    p, q = torch.tensor([0.0, -2000.0]).double(), torch.tensor([0.0, -INF]).double()
    assert d.kl(p, q).item() == INF


def test_nan_stays_nan() -> None:
    p, q = logs(*P), torch.tensor([0.0, float("nan"), -1.0]).double().log_softmax(-1)
    assert d.kl(p, q).isnan()
    assert d.kl(q, p).isnan()


MASKING, FREE = [[0.0, 1.0, -INF]] * 3, [[0.5, 0.0, 0.0]] * 3


def loss(objective: str, student: Any, teacher: Any) -> tuple[Tensor, Tensor]:
    models = Table(student), Table(teacher)
    settings = config(objective=objective)
    batch = batch_of(written([EOS], [START_OF_TWO, EOS]), models[1], settings)
    value, _ = settings.mixture.loss(Passes(*models, batch, settings), settings)
    return value, torch.autograd.grad(value, models[0].table)[0]


START_OF_TWO = 0  # a token that both allow


@pytest.mark.parametrize("objective", ["kl", "js", "tvd", "gkd"])
def test_objectives_with_a_masking_teacher_are_finite(objective: str) -> None:
    value, gradient = loss(objective, FREE, MASKING)
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("objective", "student", "teacher", "who"),
    [
        ("reverse-kl", FREE, MASKING, "the teacher gives token 2 a logit of -inf, the student does not"),
        ("kl", MASKING, FREE, "the student gives token 2 a logit of -inf, the teacher does not"),
    ],
)
def test_an_infinite_divergence_names_the_token(objective: str, student: Any, teacher: Any, who: str) -> None:
    with pytest.raises(ValueError, match=rf"infinite at response 0, position 0: {who}\. .*js, tvd"):
        loss(objective, student, teacher)


def test_padding_may_be_infinitely_far() -> None:
    """Where the first response is padded, after EOS, each model masks what the other allows."""
    teacher = [[0.0, 1.0, 0.0], [0.0, -INF, 0.0], [0.0, 1.0, 2.0]]
    student = [[0.5, 0.0, 0.0], [-INF, 0.0, -INF], [0.5, 0.0, 0.0]]
    models = Table(student), Table(teacher)
    settings = config(objective="kl + reverse-kl")
    batch = batch_of(written([EOS], [WORD, EOS]), models[1], settings)
    value, _ = settings.mixture.loss(Passes(*models, batch, settings), settings)
    assert value.isfinite()
    assert torch.autograd.grad(value, models[0].table)[0].isfinite().all()


def test_entropy_and_uniform_targets_are_over_the_tokens_that_are_left() -> None:
    """Logits log 1, log 3, -inf: H = log 4 - 3/4 log 3; the mean -log pi over two tokens is log 4 - log 3 / 2."""
    z = torch.tensor([0.0, log(3), -INF], dtype=torch.float64, requires_grad=True)
    assert entropy(z).item() == pytest.approx(log(4) - 0.75 * log(3), rel=1e-12)
    assert uniform_cross_entropy(z).item() == pytest.approx(log(4) - 0.5 * log(3), rel=1e-12)
    (slope,) = torch.autograd.grad(uniform_cross_entropy(z), z)
    assert slope.tolist() == pytest.approx([0.25 - 0.5, 0.75 - 0.5, 0], rel=1e-12)
    (slope,) = torch.autograd.grad(entropy(z), z)  # -pi_a (log pi_a + H)
    assert slope.tolist() == pytest.approx([0.1875 * log(3), -0.1875 * log(3), 0], rel=1e-12)


def test_label_smoothing_leaves_masked_tokens_out() -> None:
    """Uniform over (1/4, 3/4): 0.8 (-log 3/4) + 0.2 (log 4 - log 3 / 2)."""
    student = Table([[0.0, log(3), -INF]] * 3)
    settings = config(objective="sft", label_smoothing_factor=0.2)
    batch = batch_of(written([EOS]), student, settings)
    value, _ = settings.mixture.loss(Passes(student, None, batch, settings), settings)
    assert value.item() == pytest.approx(0.8 * log(4 / 3) + 0.2 * (log(4) - 0.5 * log(3)), rel=1e-12)
