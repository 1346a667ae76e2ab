"""The engines on every case of ``tests.cases`` against gradient moments formed from their definition."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from kvar.gradients.loop import loop_moments
from kvar.gradients.moments import GroupMoments
from kvar.gradients.one_pass.engine import one_pass_moments
from kvar.rollouts import Rollouts
from tests.cases import CASES, build, rollouts
from tests.gradients.truth import assert_close, splits, true_moments, weights

LOOPED = ("t5", "bart", "gpt2", "llama", "opt-projected", "t5-lora")
"""The loop knows no layers: one of each kind of model."""


@pytest.fixture(autouse=True)
def no_whole_passes(recwarn: pytest.WarningsRecorder) -> None:
    """Rules and operations cover every case: a trajectory measured by a pass of its own would be an error."""
    warnings.filterwarnings("error", message="no rule covers")


@dataclass(frozen=True)
class Measured:
    """A model, what it is measured on, and what must come out."""

    model: Any
    data: Rollouts
    w: torch.Tensor
    groups: dict[str, list[torch.nn.Parameter]]
    truth: dict[str, GroupMoments]
    tolerance: float

    @property
    def without_power(self) -> dict[str, GroupMoments]:
        """The truth where nobody asks for the score power."""
        return {g: GroupMoments(**{**vars(m), "score_power": None}) for g, m in self.truth.items()}


@pytest.fixture(scope="module")
def case(request: pytest.FixtureRequest) -> Measured:
    """Seven trajectories of three prompts, three estimators, groups that overlap."""
    name = request.param
    if CASES[name].lora:
        pytest.importorskip("peft")
    model, data = build(name), rollouts(n=7, t=5)
    w, groups = weights(data), splits(model)
    return Measured(model, data, w, groups, true_moments(model, data, w, groups), CASES[name].tolerance)


@pytest.mark.parametrize("case", LOOPED, indirect=True)
def test_loop(case: Measured) -> None:
    ours = loop_moments(case.model, case.data, case.w, case.groups, score_power=True)
    assert_close(ours, case.truth, case.tolerance)


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_one_pass(case: Measured) -> None:
    ours = one_pass_moments(case.model, case.data, case.w, case.groups, score_power=True)
    assert_close(ours, case.truth, case.tolerance)


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_one_pass_in_micro_batches(case: Measured) -> None:
    """Prompts of four, two and one trajectories: within a micro-batch, and spread over two."""
    ours = one_pass_moments(case.model, case.data, case.w, case.groups, micro_batch=3)
    assert_close(ours, case.without_power, case.tolerance)


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_one_pass_norms(case: Measured) -> None:
    norms = one_pass_moments(case.model, case.data, case.w, case.groups, fields="norms", micro_batch=4)
    expected = {g: GroupMoments(m.sq_norm, m.mean_pair) for g, m in case.truth.items()}
    assert_close(norms, expected, case.tolerance)
