"""What is measured is what is trained: the trainer's own gradient of a step against the instrument and autograd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import TrainerCallback

from kvar.distill import DistillationTrainer
from kvar.distill.objectives import NORMALISATIONS, Batch, Passes, count
from kvar.distill.step.coefficients import redrawn, with_coefficients
from kvar.estimators import gather, parse_estimators
from kvar.gradients import gradient_moments
from kvar.rollouts import Rollouts, concatenate
from kvar.tasks import Example
from tests.distill.objectives.objective_cases import config, gradient
from tests.distill.objectives.table_models import EOS, WORD, Table, written
from tests.distill.objectives.trained_step import DATA, NAMES, SHARED, TOKENIZER, letters, main, models, trained
from tests.two_processes import results


def whole(batches: list[Batch]) -> Rollouts:
    return concatenate([batch.responses["student"] for batch in batches])


def scored(rollouts: Rollouts) -> list[float]:
    """The score, from the responses' texts and from the references as the data has them."""
    targets = {tuple(row["prompt"]): TOKENIZER.decode(row["target"], skip_special_tokens=True) for row in DATA}
    prompts = [tuple(ids[kept].tolist()) for ids, kept in zip(rollouts.prompt_ids, rollouts.prompt_mask, strict=True)]
    texts = [
        TOKENIZER.decode(ids[kept], skip_special_tokens=True).strip()
        for ids, kept in zip(rollouts.tokens, rollouts.mask, strict=True)
    ]
    return letters(texts, [Example("", targets[prompt].strip()) for prompt in prompts])


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tensor, Rollouts]:
    """(E, E) inner products of the mean gradients that the instrument measures, on the rollouts of a step."""
    _, batches, _ = trained(tmp_path_factory.mktemp("rollouts"), 4, 1, estimator="kl immediate exact")
    rollouts = whole(batches)
    assert len(rollouts) == 12 and len(set(rollouts.lengths.tolist())) > 2
    student, teacher = models()
    estimators = parse_estimators(list(NAMES))
    evidence = gather(student, teacher, rollouts, scored, estimators=estimators)
    return gradient_moments(student, rollouts, (evidence, estimators), engine="loop").mean_pair, rollouts


def check(names: tuple[str, ...], gradients: list[Tensor], pair: Tensor) -> None:
    """All inner products of the trainer's gradients, which descend, are those of the mean measured gradients."""
    g = torch.stack(gradients)
    places = torch.tensor([NAMES.index(name) for name in names])
    pair = pair[places][:, places]
    scale = pair.diagonal().sqrt()
    assert float(scale.min()) > 1e-3
    apart = ((g @ g.T - pair) / (scale[:, None] * scale)).abs()
    assert float(apart.max()) < 1e-9, [(names[i], names[j]) for i, j in (apart >= 1e-9).nonzero().tolist()]


@pytest.mark.parametrize(("names", "rows", "steps"), [(NAMES, 4, 1), (SHARED, 1, 4)], ids=["one batch", "four"])
def test_what_is_measured_is_what_is_trained(
    tmp_path: Path, measured: Any, names: tuple[str, ...], rows: int, steps: int
) -> None:
    pair, rollouts = measured
    gradients = []
    for place, name in enumerate(names):
        g, batches, _ = trained(tmp_path / str(place), rows, steps, estimator=name)
        assert len(batches) == steps
        assert torch.equal(whole(batches).tokens[whole(batches).mask], rollouts.tokens[rollouts.mask])
        gradients.append(g)
    check(names, gradients, pair)


@pytest.mark.slow
def test_two_processes_train_what_is_measured_on_one(tmp_path: Path, measured: Any) -> None:
    for gradients in results(main, tmp_path):
        for rows in (1, 2):
            check(SHARED, [gradients[name, rows] for name in SHARED], measured[0])


TEACHER = torch.tensor([[0.0, 3.0, 1.0], [9.0, 1.0, 1.0], [0.5, 2.0, -1.0]], dtype=torch.float64)
STUDENT = torch.tensor([[0.3, -0.2, 0.4], [0.0, 0.0, 0.0], [-0.5, 0.1, 0.6]], dtype=torch.float64)
RESPONSES = ([WORD, WORD, EOS], [EOS], [WORD, EOS], [WORD, WORD, WORD])
PROMPTS = torch.tensor([0, 0, 1, 1])


def by_hand(name: str, table: Tensor, divide: Any) -> Tensor:
    """Minus the loss, written out one token at a time; ``divide``: (response, its terms' sum) -> its share."""
    log_pi, log_p = table.log_softmax(-1), TEACHER.log_softmax(-1)
    ratio = (log_p - log_pi).detach()
    gap = TEACHER - TEACHER.max(-1, keepdim=True).values
    states = [[0, *response[:-1]] for response in RESPONSES]

    def expected(s: int) -> Tensor:
        return (log_pi[s].detach().exp() * ratio[s]).sum()

    total = torch.zeros((), dtype=torch.float64)
    for i, response in enumerate(RESPONSES):
        mate = RESPONSES[i ^ 1], states[i ^ 1]
        terms = []
        for t, (s, y) in enumerate(zip(states[i], response, strict=True)):
            pairs = list(zip(states[i], response, strict=True))
            if name == "kl immediate exact":
                terms.append((log_pi[s].exp() * ratio[s]).sum())
            elif name == "kl immediate centred":
                terms.append((ratio[s, y] - expected(s)) * log_pi[s, y])
            elif name == "kl K=1 exact expected":
                terms.append((log_pi[s].exp() * ratio[s]).sum())
                terms.append(sum((expected(s2) for s2, _ in pairs[t + 1 :]), torch.zeros(())) * log_pi[s, y])
            elif name == "gap K=1 - leave-one-out":
                mine = sum(gap[s2, y2] for s2, y2 in pairs[t:])
                ahead = list(zip(mate[1], mate[0], strict=True))
                later = [sum(gap[s2, y2] for s2, y2 in ahead[u:]) for u in range(len(ahead))]
                base = later[t] if t < len(later) else sum(later) / len(later)
                terms.append((mine - base) * log_pi[s, y])
            elif name == "score - leave-one-out":
                terms.append((len(response) - len(mate[0])) * log_pi[s, y])
            elif name == "jsd(0.3) immediate exact":
                m = (0.3 * log_p[s].exp() + 0.7 * log_pi[s].exp()).log()
                terms.append(-0.3 * (log_p[s].exp() * (log_p[s] - m)).sum())
                terms.append(-0.7 * (log_pi[s].exp() * (log_pi[s] - m)).sum())
            else:  # k3 as a loss
                r = log_p[s, y] - log_pi[s, y]
                terms.append(-(r.exp() - 1 - r))
        total = total + divide(len(response), sum(terms))
    return total


DIVIDED = {
    "token-mean": lambda length, terms: terms / 9,
    "sequence-mean": lambda length, terms: terms / 4,
    "sequence-token-mean": lambda length, terms: terms / length / 4,
}


def table_loss(settings: Any, student: Table) -> tuple[Tensor, dict[str, float]]:
    rollouts = written(*RESPONSES)
    rollouts.prompt_index.copy_(PROMPTS)
    needed = settings.mixture.needs_teacher(settings)
    teacher = Table(TEACHER) if needed else None
    batch = with_coefficients(
        Batch({"student": rollouts}, {"student": count(rollouts.mask)}), settings.mixture.estimators(settings),
        student=student, teacher=teacher, settings=settings, scored=lambda some: some.lengths,
    )  # fmt: skip
    return settings.mixture.loss(Passes(student, teacher, batch, settings), settings)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize(
    "name",
    [
        "kl immediate exact", "kl immediate centred", "kl K=1 exact expected", "gap K=1 - leave-one-out",
        "score - leave-one-out", "jsd(0.3) immediate exact", "k3-loss immediate",
    ],
)  # fmt: skip
def test_gradients_by_autograd_of_what_is_written_out(name: str, normalisation: str) -> None:
    student = Table(STUDENT)
    settings = config(objective="policy-gradient", estimator=name, normalisation=normalisation, rollouts_per_prompt=2)
    loss, _ = table_loss(settings, student)
    truth = torch.autograd.grad(-by_hand(name, student.table, DIVIDED[normalisation]), student.table)[0]
    assert float(truth.norm()) > 0.01
    torch.testing.assert_close(gradient(student, loss), truth.flatten(), rtol=1e-12, atol=1e-14)


def test_length_normalised_returns_by_hand() -> None:
    """Scores (3, 1, 2, 3) over lengths are 1 each: less the other's, none is left; without a baseline, mean log pi."""
    student = Table(STUDENT)
    options = {"objective": "policy-gradient", "rollouts_per_prompt": 2, "length_normalised_returns": True}
    loss, logs = table_loss(config(estimator="score - leave-one-out", **options), student)
    assert float(gradient(student, loss).abs().max()) < 1e-15
    assert logs["reward"] == 9 / 4  # as it was scored
    plain, _ = table_loss(config(estimator="score", **options), student)
    log_pi = student.table.log_softmax(-1)
    pairs = [(s, y) for response in RESPONSES for s, y in zip([0, *response[:-1]], response, strict=True)]
    truth = torch.autograd.grad(-sum(log_pi[s, y] for s, y in pairs) / 9, student.table)[0]
    torch.testing.assert_close(gradient(student, plain), truth.flatten(), rtol=1e-12, atol=1e-14)
    exact = config(estimator="kl immediate exact", normalisation="sequence-mean", **options)
    truth = torch.autograd.grad(
        -by_hand("kl immediate exact", student.table, DIVIDED["sequence-token-mean"]), student.table
    )[0]
    torch.testing.assert_close(
        gradient(student, table_loss(exact, student)[0]), truth.flatten(), rtol=1e-12, atol=1e-14
    )


def test_exact_losses_are_those_of_the_stepwise_objectives() -> None:
    """ "kl immediate exact" is reverse-kl on the student's responses, in value too."""
    student = Table(STUDENT)
    settings = config(objective="policy-gradient", estimator="kl immediate exact")
    loss, logs = table_loss(settings, student)
    rollouts = written(*RESPONSES)
    other = config(objective="reverse-kl")
    batch = Batch({"student": rollouts}, {"student": count(rollouts.mask)})
    truth, _ = other.mixture.loss(Passes(student, Table(TEACHER), batch, other), other)
    assert loss.item() == pytest.approx(truth.item(), rel=1e-12)
    torch.testing.assert_close(gradient(student, loss), gradient(student, truth), rtol=1e-12, atol=1e-14)
    assert logs["reward"] == pytest.approx(-truth.item() * 9 / 4, rel=1e-12)


def test_thinning_draws_anew_every_step() -> None:
    settings = config(objective="policy-gradient", estimator="gap thinning(2, 5)")
    drawn = [redrawn(settings.mixture.estimators(settings), step)["policy-gradient"].name for step in (0, 1, 2)]
    assert drawn == ["gap thinning(2, 5)", "gap thinning(2, 6)", "gap thinning(2, 7)"]


def test_a_callback_that_watches_rollouts_gets_the_teachers_values(tmp_path: Path) -> None:
    seen: list[Tensor] = []

    class Watching(TrainerCallback):
        def on_rollouts(self, rollouts: Rollouts, values: Any) -> None:
            seen.append(values.gap[rollouts.mask])

    _, _, log = trained(tmp_path, 4, 1, estimator="kl immediate exact", callbacks=[Watching()])
    assert len(seen) == 1 and float(seen[0].min()) >= 0
    assert log["gap_per_token"] == pytest.approx(float(seen[0].mean()), rel=1e-6)


def test_a_score_is_trained_without_a_teacher(tmp_path: Path) -> None:
    _, batches, log = trained(tmp_path, 4, 1, estimator="score - leave-one-out", alone=True)
    rollouts = whole(batches)
    assert log["reward"] == pytest.approx(sum(scored(rollouts)) / 12, rel=1e-6)
    assert "total_gap" not in log


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "objective policy-gradient needs estimator, for instance estimator: 'kl immediate exact'"),
        ({"estimator": "kl immediate exat"}, "the word 'exat' is unknown .did you mean 'exact'"),
        ({"estimator": "K=1, K=4"}, "names 2 estimators; training takes one"),
        ({"estimator": "score exact"}, "exact sums over the next token, and reward 'score' is known for sampled"),
        ({"estimator": "K=1 - leave-one-out"}, "baseline leave-one-out needs rollouts_per_prompt >= 2; got 1"),
        ({"estimator": "kl K=1 - group-normalised"}, "baseline group-normalised needs rollouts_per_prompt >= 2"),
        ({"estimator": "kl K=1 ratio", "top_k": 1}, "correction 'ratio' needs the probabilities .* with top_k 1"),
        ({"estimator": "K=1", "baseline": "batch-mean"}, "baseline is batch-mean, which only ketchup and llmr use"),
        ({"estimator": "K=1", "return_clip": 5.0}, "return_clip is 5.0, which only ketchup and llmr use"),
        ({"estimator": "K=1", "objective": "ketchup"}, "objective 'ketchup' does not follow it: set objective"),
    ],
)  # fmt: skip
def test_contradicting_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**{"objective": "policy-gradient", **changes})


def test_what_the_trainer_lacks_is_said_before_training() -> None:
    student, _ = models()
    with pytest.raises(ValueError, match="objective 'policy-gradient' needs a teacher"):
        DistillationTrainer(student, config(objective="policy-gradient", estimator="kl immediate"))
    with pytest.raises(ValueError, match="estimator 'score' needs score=, a function of responses and their examples"):
        DistillationTrainer(student, config(objective="policy-gradient", estimator="score"))
    both = (
        r"score of DistillationTrainer must be a function score\(texts, examples\) .* not score\(rollouts\), which is "
    )
    with pytest.raises(ValueError, match=both + "kvar.measure and GradientProbe's; got"):
        DistillationTrainer(
            student,
            config(objective="policy-gradient", estimator="score"),
            score=lambda rollouts: [0.0] * len(rollouts),  # type: ignore[arg-type, misc]
        )


def test_the_settings_name_is_the_estimators_own() -> None:
    assert config(objective="policy-gradient", estimator="kl  exact immediate").estimator == "kl immediate exact"
    assert config(estimator="none").estimator is None
