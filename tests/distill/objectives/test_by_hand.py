"""Objectives, divergences and the reference recipe against numbers worked out by hand."""

from __future__ import annotations

from math import log
from typing import Any

import pytest
import torch

from kvar.distill.objectives import Batch, Passes, count
from kvar.distill.objectives.stepwise import divergences as d
from kvar.returns import returns
from kvar.rollouts import score
from tests.distill.objectives.objective_cases import config
from tests.distill.objectives.table_models import EOS, WORD, Table, written

P, Q = (1 / 2, 1 / 4, 1 / 4), (1 / 8, 3 / 8, 1 / 2)
FORWARD = 0.5 * log(4) + 0.25 * log(2 / 3) + 0.25 * log(1 / 2)
REVERSE = 0.125 * log(1 / 4) + 0.375 * log(3 / 2) + 0.5 * log(2)
P_TO_HALF = 0.5 * log(8 / 5) + 0.25 * log(4 / 5) + 0.25 * log(2 / 3)  # the mixture is (5, 5, 6) / 16
Q_TO_HALF = 0.125 * log(2 / 5) + 0.375 * log(6 / 5) + 0.5 * log(4 / 3)
P_TO_QUARTER = 0.5 * log(16 / 7) + 0.25 * log(8 / 11) + 0.25 * log(4 / 7)  # p / 4 + 3 q / 4 is (7, 11, 14) / 32
Q_TO_QUARTER = 0.125 * log(4 / 7) + 0.375 * log(12 / 11) + 0.5 * log(8 / 7)


def logs(*weights: float) -> torch.Tensor:
    return torch.tensor(weights, dtype=torch.float64).log()


def batch_of(responses: Any, teacher: Table, settings: Any, on_policy: bool = False) -> Batch:
    found = {"data": responses, "student": responses, "teacher": responses}
    values = score(teacher, responses, centre=settings.centre, value=settings.value)
    advantages = {
        name: returns(values, responses.mask, [estimator.kernel])[0]
        for name, estimator in settings.mixture.estimators(settings).items()
    }
    counts: Any = {source: count(responses.mask) for source in found}
    return Batch(found, counts, values, advantages, on_policy=on_policy)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("sft", {}, log(8 / 3)),
        ("seqkd", {}, log(8 / 3)),
        ("sft", {"label_smoothing_factor": 0.3}, 0.7 * log(8 / 3) + 0.3 * (log(8) + log(8 / 3) + log(2)) / 3),
        ("kl", {}, FORWARD),
        ("reverse-kl", {}, REVERSE),
        ("js", {}, (P_TO_HALF + Q_TO_HALF) / 2),
        ("tvd", {}, 3 / 8),
        ("gkd", {"gkd_beta": 0.25}, 0.25 * P_TO_QUARTER + 0.75 * Q_TO_QUARTER),
        ("gkd", {"gkd_beta": 0.0}, FORWARD),
        ("gkd", {"gkd_beta": 1.0}, REVERSE),
        ("0.5 kl + 2 sft", {}, FORWARD / 2 + 2 * log(8 / 3)),
    ],
)
def test_one_token(name: str, changes: dict, expected: float) -> None:
    """One response of one token, EOS, in the one state where the teacher says p and the student q."""
    teacher, student = (Table(logs(*weights).expand(3, 3)) for weights in (P, Q))
    settings = config(objective=name, **changes)
    batch = batch_of(written([EOS]), teacher, settings)
    value, _ = settings.mixture.loss(Passes(student, teacher, batch, settings), settings)
    assert float(value) == pytest.approx(expected, rel=1e-12)


def test_divergences_of_a_block() -> None:
    p, q = logs(*P).expand(2, 4, 3), logs(*Q).expand(2, 4, 3)
    assert torch.allclose(d.jensen_shannon(p, q), torch.tensor((P_TO_HALF + Q_TO_HALF) / 2, dtype=torch.float64))
    assert d.total_variation(p, q).shape == (2, 4)
    assert float(d.mixture_kl(q, p, q)[0, 0]) == pytest.approx(Q_TO_HALF)


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_generalised_jsd_is_trls(beta: float) -> None:
    """TRL's is the paper's since its #3043, which had the mixture's weights the other way round (see also #5731)."""
    gkd = pytest.importorskip("trl.experimental.gkd")
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(2, 5, 11, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
    labels = torch.where(mask, 1, -100)
    theirs = gkd.GKDTrainer.generalized_jsd_loss(student, teacher, labels=labels, beta=beta)
    ours = d.generalised_jsd(teacher.log_softmax(-1), student.log_softmax(-1), beta)[mask].mean()
    assert float(ours) == pytest.approx(float(theirs), rel=1e-12)


def test_generalised_jsd_nears_its_end_points_divided_by_the_weight() -> None:
    p, q = logs(*P), logs(*Q)
    small = 1e-7
    assert float(d.generalised_jsd(p, q, small)) / small == pytest.approx(FORWARD, rel=1e-4)
    assert float(d.generalised_jsd(p, q, 1 - small)) / small == pytest.approx(REVERSE, rel=1e-4)


# The teacher's logits less their mean: (-3, 0, 3) at the start, (-2, 4, -2) after WORD. Of the response WORD WORD EOS:
# q = (3, -2, 4), V = (3, 4, 4), gaps (0, 6, 0), so G = (-3, -2, 4) for K = 1, and (3, -2, 4) for K = 2 and K = 3.
TEACHER = [[0.0, 3.0, 6.0], [9.0, 1.0, 1.0], [0.0, 6.0, 0.0]]
THIRD = torch.tensor([-1 / 3, -1 / 3, 2 / 3], dtype=torch.float64)  # onehot(WORD) - pi, pi uniform


@pytest.mark.parametrize(("kernel", "first"), [("K=1", -3), ("K=2", 3), ("K=8", 3)])
def test_the_reference_recipe(kernel: str, first: float) -> None:
    """rho = pi = 1/3 multiplies the return; loss - sum rho G log pi / 3 tokens; each response for itself."""
    settings = config(preset="reference", kernel=kernel)
    teacher, student = Table(TEACHER), Table(torch.zeros(3, 3))
    one = batch_of(written([WORD, WORD, EOS]), teacher, settings)
    value, _ = settings.mixture.loss(Passes(student, teacher, one, settings), settings)
    weights = torch.tensor([first, -2, 4], dtype=torch.float64) / 3
    assert float(value) == pytest.approx(float(weights.sum()) * log(3) / 3, rel=1e-12)
    (gradient,) = torch.autograd.grad(value, student.table)
    after_word = -(weights[1] * THIRD + weights[2] * THIRD[[0, 2, 1]]) / 3
    expected = torch.stack([-weights[0] * THIRD / 3, torch.zeros(3, dtype=torch.float64), after_word])
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-15)

    # Beside it the response EOS: q = 0, so no loss; the mean over the two responses' means is half the above.
    two = batch_of(written([WORD, WORD, EOS], [EOS]), teacher, settings)
    both, _ = settings.mixture.loss(Passes(student, teacher, two, settings), settings)
    assert float(both) == pytest.approx(float(value) / 2, rel=1e-12)


def test_the_reference_recipe_clips_after_multiplying() -> None:
    """A hundredfold teacher: G = (-300, -200, 400), rho G = (-100, -66.7, 133.3), clipped to (-50, -50, 50)."""
    settings = config(preset="reference", kernel="K=1")
    teacher, student = Table(100 * torch.tensor(TEACHER)), Table(torch.zeros(3, 3))
    batch = batch_of(written([WORD, WORD, EOS]), teacher, settings)
    value, _ = settings.mixture.loss(Passes(student, teacher, batch, settings), settings)
    assert float(value) == pytest.approx(-50 * log(3) / 3, rel=1e-12)


def test_ketchup_by_hand_with_behaviour_probabilities() -> None:
    """pi = 1/3 over b = 1/2 gives rho = 2/3; of K = 1: weights (-2, -4/3, 8/3) over three tokens."""
    settings = config(objective="llmr")
    responses = written([WORD, WORD, EOS])
    responses.log_probs.fill_(log(1 / 2))
    teacher, student = Table(TEACHER), Table(torch.zeros(3, 3))
    batch = batch_of(responses, teacher, settings)
    value, _ = settings.mixture.loss(Passes(student, teacher, batch, settings), settings)
    assert float(value) == pytest.approx(-(2 / 3) * log(3) / 3, rel=1e-12)
