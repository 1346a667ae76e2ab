"""Two real processes over gloo: their joint moments equal those of one process that holds every trajectory."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kvar.estimators import Terms, gather, with_references
from kvar.gradients import gradient_moments
from kvar.hooks import estimator_weights, parse_estimators
from kvar.rollouts import score
from tests.cases import build, rollouts, tiny_gpt2, tiny_t5
from tests.gradients.distributed_worker import (
    ESTIMATORS,
    EXACT,
    OPTIONS,
    ROWS,
    WITH_DATA,
    WITHIN,
    double_norms,
    groups_of,
    main,
    teacher,
    written,
)
from tests.gradients.distributed_worker import score as worker_score
from tests.gradients.truth import assert_close, weights
from tests.two_processes import results


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found."""
    return results(main, tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize(
    ("name", "tolerance", "label"),
    [*((name, 1e-9, label) for name in ("t5", "gpt2") for label in OPTIONS), ("t5-float32-norms", 1e-6, "plain")],
)
def test_every_field_equals_one_process(both: list[dict[str, Any]], name: str, tolerance: float, label: str) -> None:
    model = build("t5" if name.startswith("t5") else name)
    model = double_norms(model) if name == "t5" else model
    order = ROWS[0] + ROWS[1]
    data, w = rollouts(n=9)[order], weights(rollouts(n=9))[:, order]
    groups = groups_of(model) if "groups" in label else None
    truth = gradient_moments(model, data, w, groups=groups, **{**OPTIONS[label], "engine": "loop"})
    for found in both:
        got = found["moments"][f"{name} {label}"]
        assert torch.equal(got.prompt_index, data.prompt_index)
        assert_close(dict(got.groups), dict(truth.groups), tolerance, label)


@pytest.mark.parametrize("name", ["t5", "gpt2"])
@pytest.mark.parametrize("label", ["plain", "micro-batches", "norms"])
def test_exact_terms_equal_one_process(both: list[dict[str, Any]], name: str, label: str) -> None:
    model = double_norms(build(name)) if name == "t5" else build(name)
    data = rollouts(n=9)[ROWS[0] + ROWS[1]]
    estimators = parse_estimators(WITHIN)
    evidence = gather(model, teacher, data, worker_score, estimators=estimators)
    truth = gradient_moments(model, data, (evidence, estimators), **{**OPTIONS[label], "engine": "loop"})
    for found in both:
        got = found["moments"][f"{name} exact, {label}"]
        assert got.names == truth.names
        assert_close(dict(got.groups), dict(truth.groups), 1e-9, label)


def test_callables_too(both: list[dict[str, Any]]) -> None:
    plain, called = (both[0]["moments"][f"t5-float32-norms {label}"] for label in ("plain", "callable"))
    assert_close(dict(called.groups), dict(plain.groups), 1e-6)


def test_processes_that_do_not_fit_are_told(both: list[dict[str, Any]]) -> None:
    for found in both:
        said = found["refusals"]
        assert "prompt_index 0 is on processes 0 and 1" in said["prompt"]
        assert "distinct_prompts" in said["prompt"]
        assert "3 estimators" in said["estimators"] and "2 estimators" in said["estimators"]
        assert said["fixed"] == "[0, 1]"
    assert both[0]["refusals"]["one fails"].startswith("RuntimeError: process 1 failed: ValueError: weights[0, 0, 0]")
    assert both[1]["refusals"]["one fails"].startswith("ValueError: weights[0, 0, 0] is nan")


@pytest.mark.parametrize("make", [tiny_t5, tiny_gpt2])
def test_a_probe_in_a_trainer_of_two_processes(both: list[dict[str, Any]], make: Any) -> None:
    """The prompts are shared out, the first process records, and the numbers are those of one process."""
    first, second = (found["t5" if make is tiny_t5 else "gpt2"] for found in both)
    assert first["steps"] == [0, 2, 4] and second["steps"] == []
    assert [entry["step"] for entry in first["logs"]] == [0, 2, 4] and second["logs"] == []
    assert first["train"]
    data, moments = first["last"].rollouts, first["last"].moments
    assert data.prompt_index.tolist() == [0, 0, 2, 2, 4, 4, 1, 1, 3, 3]
    assert torch.equal(moments.sq_norm, second["last"].moments.sq_norm)
    student = make()
    student.load_state_dict(first["state"])
    values = score(make(seed=1), data)
    torch.testing.assert_close(values.gap, first["last"].values.gap)
    w = estimator_weights(parse_estimators(ESTIMATORS), values, data.mask, data.prompt_index)
    truth = gradient_moments(student, data, w, engine="loop")
    assert_close(dict(moments.groups), dict(truth.groups), 1e-4)


@pytest.mark.parametrize("make", [tiny_t5, tiny_gpt2])
def test_a_probe_of_every_estimator_on_two_processes(both: list[dict[str, Any]], make: Any) -> None:
    """Baselines are formed over the responses of both, and the score is asked of all of them together."""
    first, second = (found["t5" if make is tiny_t5 else "gpt2"] for found in both)
    data, moments = first["exact"].rollouts, first["exact"].moments
    assert torch.equal(moments.pair, second["exact"].moments.pair)
    student, estimators = make(), parse_estimators(EXACT)
    student.load_state_dict(first["state"])
    evidence = gather(student, make(seed=1), data, worker_score, estimators=estimators)
    truth = gradient_moments(student, data, (evidence, estimators), engine="loop")
    assert moments.names == truth.names
    assert_close(dict(moments.groups), dict(truth.groups), 1e-4)


@pytest.mark.parametrize("make", [tiny_t5, tiny_gpt2])
def test_references_on_two_processes(both: list[dict[str, Any]], make: Any) -> None:
    """Each process measures the references of its prompts; the sampled responses come first."""
    first, second = (found["t5" if make is tiny_t5 else "gpt2"] for found in both)
    data, moments = first["data"].rollouts, first["data"].moments
    assert torch.equal(moments.pair, second["data"].moments.pair)
    student, estimators = make(), parse_estimators(WITH_DATA)
    student.load_state_dict(first["state"])
    evidence = gather(student, make(seed=1), data, estimators=estimators)
    terms = with_references(Terms.of(estimators, evidence), written(make)[[0, 2, 4, 1, 3]])
    truth = gradient_moments(student, terms.evidence.rollouts, terms, engine="loop")
    assert moments.names == truth.names
    assert torch.equal(moments.on, truth.on) and torch.equal(moments.prompt_index, truth.prompt_index)
    assert_close(dict(moments.groups), dict(truth.groups), 1e-4)


def test_a_group_of_processes_is_needed() -> None:
    data = rollouts()
    with pytest.raises(RuntimeError, match="needs torch.distributed.init_process_group"):
        gradient_moments(build("gpt2"), data, weights(data), distributed=True)
    with pytest.raises(ValueError, match="engine='jvp' is not joined"):
        gradient_moments(build("gpt2"), data, weights(data), engine="jvp", distributed=True)
