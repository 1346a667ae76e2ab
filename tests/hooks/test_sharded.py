"""Two real processes over gloo: students under DDP and FSDP2 are measured and trained as one process does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kvar.gradients import gradient_moments
from tests.cases import build, rollouts
from tests.gradients.distributed_worker import ROWS
from tests.gradients.truth import assert_close, weights
from tests.hooks.sharded_worker import MODELS, OBJECTIVES, main, trained
from tests.two_processes import results


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes saw."""
    return results(main, tmp_path_factory.mktemp("two"))


def close(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-5) -> None:
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) <= tolerance * float(theirs.abs().max())


@pytest.mark.parametrize("kind", MODELS)
def test_every_function_takes_a_split_model(both: list[dict[str, Any]], kind: str) -> None:
    for process in both:
        for name, (ours, plain) in process[kind]["pairs"].items():
            assert len(plain), name
            close(ours, plain)
        assert process[kind]["untouched"]


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("way", ["ddp", "fsdp2"])
def test_joint_moments_are_those_of_one_process(both: list[dict[str, Any]], kind: str, way: str) -> None:
    order = ROWS[0] + ROWS[1]
    truth = gradient_moments(build(kind), rollouts(n=9)[order], weights(rollouts(n=9))[:, order], engine="loop")
    for process in both:
        assert_close(dict(process[kind]["joint"][way].groups), dict(truth.groups), 1e-5)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_training_ends_where_one_process_does(both: list[dict[str, Any]], kind: str, name: str, tmp_path: Path) -> None:
    alone = trained(tmp_path, kind, 4, **OBJECTIVES[name])
    for way in ("ddp", "fsdp2"):
        for process in both:
            split = process["trainings"][way, kind, name]
            assert split["sharded"] == (way == "fsdp2")
            close(split["weights"], alone["weights"])
            assert split["logs"] == pytest.approx(alone["logs"], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("kind", MODELS)
def test_probes_of_a_split_training_measure_what_they_do_under_ddp(both: list[dict[str, Any]], kind: str) -> None:
    ddp, split = (both[0]["trainings"][way, kind, "llmr"] for way in ("ddp", "fsdp2"))
    assert [m.step for m in split["gradient"]] == [m.step for m in ddp["gradient"]] == [0, 2, 3]
    for ours, theirs in zip(split["gradient"], ddp["gradient"], strict=True):
        assert torch.equal(ours.rollouts.tokens, theirs.rollouts.tokens)
        assert_close(dict(ours.moments.groups), dict(theirs.moments.groups), 1e-4)
    assert [m.step for m in split["head"]] == [0, 1, 2]
    for ours, theirs in zip(split["head"], ddp["head"], strict=True):
        close(ours.power, theirs.power, 1e-4)
        assert (ours.inner is None) == (theirs.inner is None) == bool(ours.step % 2)


def test_a_whole_model_can_have_the_precision_of_training(both: list[dict[str, Any]]) -> None:
    ours, plain = both[0]["mixed"]
    assert plain.dtype == torch.bfloat16
    assert torch.equal(ours, plain)
