"""Every objective against a slow, explicit computation: value, gradient, padding of rows and of the vocabulary."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kvar.distill.objectives import OBJECTIVES, Batch, Passes, count
from kvar.distill.objectives.on_policy.entropy import entropy, uniform_cross_entropy
from kvar.distill.objectives.on_policy.reinforce import advantage_weights
from kvar.rollouts import log_probs
from tests.distill.objectives.objective_cases import (
    VOCABULARY,
    batch_of,
    config,
    gradient,
    loss_of,
    models,
    responses,
    slow,
    unpadded,
)

CASES: list[tuple[str, dict[str, Any], dict[str, Any], bool]] = [
    ("sft", {}, {}, False),
    ("seqkd", {}, {}, False),
    ("kl", {}, {}, False),
    ("kl", {"responses": "teacher"}, {"source": "teacher"}, False),
    ("reverse-kl", {}, {}, False),
    ("reverse-kl", {"responses": "data"}, {"source": "data"}, False),
    ("js", {}, {}, False),
    ("js", {"responses": "data"}, {"source": "data"}, False),
    ("tvd", {}, {}, False),
    ("gkd", {"gkd_beta": 0.3}, {"beta": 0.3}, False),
    ("gkd", {"gkd_beta": 0.3}, {"beta": 0.3, "source": "student"}, True),
    ("llmr", {"kernel": "K=4"}, {"kernel": "K=1"}, False),
    ("ketchup", {"kernel": "K=2"}, {"kernel": "K=2"}, False),
    ("ketchup", {"kernel": "K=3 free"}, {"kernel": "K=3 free"}, False),
    ("policy-gradient", {"estimator": "K=2"}, {"kernel": "K=2"}, False),
    ("policy-gradient", {"estimator": "kl immediate exact"}, {"as": "reverse-kl"}, False),
]
NAMES = [f"{name}-{index}" for index, (name, *_) in enumerate(CASES)]


def test_every_objective_is_among_the_cases() -> None:
    assert {case[0] for case in CASES} == set(OBJECTIVES)


@pytest.mark.parametrize("family", ["t5", "gpt2"])
@pytest.mark.parametrize(("name", "changes", "options", "on_policy"), CASES, ids=NAMES)
def test_value_and_gradient_are_the_slow_ones(
    family: str, name: str, changes: dict, options: dict, on_policy: bool
) -> None:
    """Rows of different lengths, and logits past the tokenizer's vocabulary that would dominate if they counted."""
    student, teacher = models(family)
    found = responses(student, teacher)
    settings = config(objective=name, rollouts_per_prompt=2, **changes)
    loss = loss_of(student, teacher, batch_of(found, teacher, settings, on_policy=on_policy), settings)
    expected = slow(options.get("as", name), student, teacher, found, **options)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6, abs=1e-9)
    got, truth = gradient(student, loss), gradient(student, expected)
    assert float(truth.norm()) > 0
    torch.testing.assert_close(got, truth, rtol=1e-5, atol=1e-7 * float(truth.norm()))
    assert all(p.grad is None for model in (student, teacher) for p in model.parameters())


@pytest.mark.parametrize(("name", "changes", "options", "on_policy"), CASES, ids=NAMES)
def test_gradient_by_finite_differences(name: str, changes: dict, options: dict, on_policy: bool) -> None:
    """Of the loss itself, with responses, advantages and weights held where the loss has them detached."""
    student, teacher = models("gpt2")  # T5 normalises in float32, whatever its weights are
    found = responses(student, teacher)
    settings = config(objective=name, rollouts_per_prompt=2, importance_weight="none", **changes)
    batch = batch_of(found, teacher, settings, on_policy=on_policy)
    g = gradient(student, loss_of(student, teacher, batch, settings))
    parameters = torch.nn.utils.parameters_to_vector(student.parameters()).detach()
    direction = torch.randn(len(parameters), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    direction /= direction.norm()
    values = []
    for side in (1e-5, -1e-5):
        torch.nn.utils.vector_to_parameters(parameters + side * direction, student.parameters())
        with torch.no_grad():
            values.append(float(loss_of(student, teacher, batch, settings)))
    assert (values[0] - values[1]) / 2e-5 == pytest.approx(float(g @ direction), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_padding_holds_does_not_matter(name: str) -> None:
    student, teacher = models("gpt2")
    found = responses(student, teacher)
    estimator = "jsd(0.3) immediate exact" if name == "policy-gradient" else None
    settings = config(objective=name, estimator=estimator, rollouts_per_prompt=2)
    clean = loss_of(student, teacher, batch_of(found, teacher, settings), settings)
    clean_gradient = gradient(student, clean)
    for rollouts in found.values():
        rollouts.tokens.masked_fill_(~rollouts.mask, 7)
        rollouts.prompt_ids.masked_fill_(~rollouts.prompt_mask, 9)
        rollouts.log_probs.masked_fill_(~rollouts.mask, -3.0)
    dirty = loss_of(student, teacher, batch_of(found, teacher, settings), settings)
    torch.testing.assert_close(clean, dirty, rtol=1e-12, atol=0)
    torch.testing.assert_close(clean_gradient, gradient(student, dirty), rtol=1e-9, atol=1e-14)


def test_the_teacher_in_chunks_gives_the_same_divergence() -> None:
    student, teacher = models("t5")
    found = responses(student, teacher)
    losses = []
    for rows in (None, 1, 2):
        settings = config(objective="js", rollouts_per_prompt=2, teacher_micro_batch=rows)
        losses.append(loss_of(student, teacher, batch_of(found, teacher, settings), settings))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-12, atol=0)
    torch.testing.assert_close(losses[0], losses[2], rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["kl", "reverse-kl", "js", "tvd", "gkd"])
def test_divergences_vanish_for_the_teacher_itself(name: str) -> None:
    _, teacher = models("t5")
    settings = config(objective=name)
    batch = batch_of(responses(teacher, teacher), teacher, settings)
    assert float(loss_of(teacher, teacher, batch, settings)) == pytest.approx(0.0, abs=1e-12)


def test_sft_label_smoothing_mixes_in_the_uniform() -> None:
    student, teacher = models("t5")
    found = responses(student, teacher)
    settings = config(objective="sft", label_smoothing_factor=0.2)
    loss = loss_of(student, None, batch_of(found, teacher, settings), settings)
    total, tokens = 0.0, 0
    for row in unpadded(found["data"]):
        from kvar.rollouts import token_logits

        log_p = token_logits(student, row)[0, :, :VOCABULARY].log_softmax(-1)
        for t, token in enumerate(row.tokens[0].tolist()):
            target = [0.2 / VOCABULARY + (0.8 if a == token else 0.0) for a in range(VOCABULARY)]
            total -= sum(target[a] * float(log_p[t, a]) for a in range(VOCABULARY))
            tokens += 1
    assert float(loss) == pytest.approx(total / tokens, rel=1e-10)


def test_mixture_is_the_weighted_sum_and_runs_the_student_once_a_source() -> None:
    student, teacher = models("t5")
    found = responses(student, teacher)
    parts = {}
    for name in ("ketchup", "sft", "reverse-kl"):
        one = config(objective=name, rollouts_per_prompt=2)
        parts[name] = loss_of(student, teacher, batch_of(found, teacher, one), one)
    settings = config(objective={"ketchup": 1, "sft": 0.1, "reverse-kl": 2.5}, rollouts_per_prompt=2)
    assert settings.objective == "ketchup + 0.1 sft + 2.5 reverse-kl"
    calls: list[int] = []
    handle = student.register_forward_pre_hook(lambda *_: calls.append(1))
    passes = Passes(student, teacher, batch_of(found, teacher, settings), settings)
    loss, logs = settings.mixture.loss(passes, settings)
    handle.remove()
    assert len(calls) == 2  # its own responses, shared by two objectives, and the data's
    torch.testing.assert_close(
        loss, parts["ketchup"] + 0.1 * parts["sft"] + 2.5 * parts["reverse-kl"], rtol=1e-12, atol=0
    )
    assert logs["loss_sft"] == pytest.approx(float(parts["sft"]), rel=1e-12)


@pytest.mark.parametrize("how", ["token-mean", "sequence-mean", "sequence-token-mean"])
def test_normalisations(how: str) -> None:
    student, teacher = models("t5")
    found = responses(student, teacher)
    settings = config(objective="sft", normalisation=how)
    loss = loss_of(student, teacher, batch_of(found, teacher, settings), settings)
    sums = [float(-log_probs(student, row, vocabulary=VOCABULARY).sum()) for row in unpadded(found["data"])]
    lengths = found["data"].lengths.tolist()
    expected = {
        "token-mean": sum(sums) / sum(lengths),
        "sequence-mean": sum(sums) / len(sums),
        "sequence-token-mean": sum(s / n for s, n in zip(sums, lengths, strict=True)) / len(sums),
    }
    assert len(set(lengths)) > 1
    assert float(loss) == pytest.approx(expected[how], rel=1e-10)


def test_importance_weight_is_detached_and_clipped() -> None:
    student, teacher = models("t5")
    samples = responses(student, teacher)["student"]
    log_pi = (samples.log_probs + 0.5).requires_grad_()
    advantages = torch.linspace(-3, 3, samples.tokens.numel()).view_as(samples.log_probs)

    def weights(**changes: Any) -> torch.Tensor:
        found = advantage_weights(advantages, log_pi, samples, config(**changes))
        assert not found.requires_grad
        return found

    torch.testing.assert_close(weights(), advantages * torch.tensor(0.5).exp() * samples.mask)
    torch.testing.assert_close(weights(importance_clip=1.2), advantages * 1.2 * samples.mask)
    torch.testing.assert_close(weights(importance_weight="policy"), advantages * log_pi.detach().exp() * samples.mask)
    torch.testing.assert_close(weights(importance_weight="none", return_scale=0.1), advantages * 0.1 * samples.mask)
    assert float(weights(return_clip=1.0).abs().max()) == 1.0  # the product is clipped, not the return


@pytest.mark.parametrize("field", ["entropy_weight", "uniform_weight"])
def test_entropy_terms(field: str) -> None:
    student, teacher = models("gpt2")
    found = responses(student, teacher)
    plain, added = config(), config(**{field: 0.3})
    difference = loss_of(student, teacher, batch_of(found, teacher, added), added) - loss_of(
        student, teacher, batch_of(found, teacher, plain), plain
    )
    total, tokens = 0.0, 0
    for row in unpadded(found["student"]):
        from kvar.rollouts import token_logits

        for p in token_logits(student, row)[0, :, :VOCABULARY].softmax(-1).tolist():
            import math

            entropy_of = -sum(x * math.log(x) for x in p)
            towards_uniform = -sum(math.log(x) for x in p) / VOCABULARY
            total += -entropy_of if field == "entropy_weight" else towards_uniform
            tokens += 1
    assert float(difference) == pytest.approx(0.3 * total / tokens, rel=1e-8)


def test_entropies_by_hand() -> None:
    logits = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).log()
    assert float(entropy(logits)) == pytest.approx(1.0397207708)  # 1.5 log 2
    assert float(uniform_cross_entropy(logits)) == pytest.approx(1.1552453009)  # (1 + 2 + 2) log 2 / 3
    assert float(entropy(torch.zeros(4))) == pytest.approx(float(uniform_cross_entropy(torch.zeros(4))))  # log 4, both


def test_logs_of_reinforce() -> None:
    student, teacher = models("t5")
    found = responses(student, teacher)
    settings = config()
    batch = batch_of(found, teacher, settings)
    _, logs = settings.mixture.loss(Passes(student, teacher, batch, settings), settings)
    own, values = found["student"], batch.values
    assert values is not None
    assert logs["response_length"] == pytest.approx(float(own.lengths.float().mean()))
    assert logs["finished"] == pytest.approx(float(own.finished.float().mean()))
    assert logs["total_gap"] == pytest.approx(float(values.gap.sum(1).mean()))
    assert logs["return"] == pytest.approx(float((values.v[:, 0] - values.gap.sum(1)).mean()))
    rows, positions = (index[::4] for index in own.mask.nonzero(as_tuple=True))  # every fourth token
    from kvar.rollouts import token_logits

    p = token_logits(student, own)[rows, positions, :VOCABULARY].softmax(-1)
    assert logs["entropy"] == pytest.approx(float(-(p * p.log()).sum(-1).mean()))
    assert {"gap_per_token", "log_prob_per_token", "advantage_std"} <= set(logs)


def test_a_batch_cut_into_parts_keeps_values_advantages_and_rows() -> None:
    student, teacher = models("t5")
    found = responses(student, teacher)
    settings = config(objective="ketchup + sft + seqkd", rollouts_per_prompt=2)
    whole = batch_of(found, teacher, settings)
    total = sum(
        float(loss_of(student, teacher, whole.rows(a, b, 2), settings)) for a, b in ((0, 1), (1, 3))
    )  # counts are the whole's
    assert total == pytest.approx(float(loss_of(student, teacher, whole, settings)), rel=1e-10)
    part = whole.rows(0, 1, 2)
    assert isinstance(part, Batch) and part.counts["data"] == count(found["data"].mask)
    assert part.responses["student"].tokens.shape[1] == int(found["student"].lengths[:2].max())
