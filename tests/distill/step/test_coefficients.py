"""Coefficients over a step: kvar.returns' own where the step is one batch, the same when processes share it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kvar.distill.step.coefficients import Part, joined
from kvar.estimators import BASELINES, Estimator, Gap
from kvar.returns import KStep, TokenValues, minimum_variance, returns
from tests.distill.objectives.table_models import WORD, written

LENGTHS = [5, 2, 4, 1, 3, 5]
ROLLOUTS = replace(written(*([WORD] * n for n in LENGTHS)), prompt_index=torch.tensor([0, 0, 1, 1, 2, 2]))
MASK, INDEX = ROLLOUTS.mask, ROLLOUTS.prompt_index
OLDER = ("teacher-value", "batch-mean", "position-mean", "leave-one-out")


def numbers() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    names = ("value q", "value v", "u gap", "ubar gap", "log_probs", "logit_power", "score_norms")
    rows = {name: torch.rand(6, 5, generator=generator, dtype=torch.float64) * MASK for name in names}
    return rows | {"value v": rows["value q"] + rows["value v"]}


def part(rows: slice) -> Part:
    """Of some rows, whose longest response may be shorter; every process counts its prompts from 0."""
    width = int(MASK[rows].sum(dim=1).max())
    few = ROLLOUTS[rows]
    few = replace(few, tokens=few.tokens[:, :width], mask=few.mask[:, :width], log_probs=few.log_probs[:, :width])
    few = replace(few, prompt_index=few.prompt_index - few.prompt_index.min())
    return few, {name: x[rows, :width] for name, x in numbers().items()}


@pytest.mark.parametrize("baseline", [None, *OLDER, "minimum-variance"])
def test_one_process(baseline: str | None) -> None:
    weights, _ = Estimator(KStep(2), baseline).coefficients(joined([part(slice(0, 6))]))
    rows, named = numbers(), baseline
    if baseline == "minimum-variance":
        named = lambda g, mask: minimum_variance(g, rows["score_norms"], mask)[:, None, None]  # noqa: E731
    values = TokenValues(rows["value q"], rows["value v"])
    expected = returns(values, MASK, [KStep(2)], baseline=named, prompt_index=INDEX)[0]
    torch.testing.assert_close(weights, expected, rtol=1e-12, atol=1e-12)
    assert bool((weights[~MASK] == 0).all())


@pytest.mark.parametrize("baseline", [None, "teacher-value", *BASELINES])
def test_two_processes_that_share_a_step_get_the_rows_of_one(baseline: str | None) -> None:
    reward = None if baseline == "teacher-value" else Gap()
    estimator = Estimator(KStep(2), baseline, reward)
    whole, _ = estimator.coefficients(joined([part(slice(0, 6))]))
    both, _ = estimator.coefficients(joined([part(slice(0, 4)), part(slice(4, 6))]))
    torch.testing.assert_close(both, whole, rtol=1e-12, atol=1e-12)
    shorter, _ = estimator.coefficients(joined([part(slice(2, 4)), part(slice(0, 2)), part(slice(4, 6))]))
    torch.testing.assert_close(shorter[[2, 3, 0, 1, 4, 5]], whole, rtol=1e-12, atol=1e-12)


def test_minimum_variance_by_hand() -> None:
    """G = (1, 3) with |s|^2 = (1, 3): b = (1 + 9) / 4; the mean would be 2."""
    column = torch.tensor([[1.0], [3.0]])
    rows = dict.fromkeys(("value q", "value v", "log_probs", "logit_power", "score_norms"), column)
    weights, _ = Estimator(KStep(1), "minimum-variance").coefficients(joined([(written([WORD], [WORD]), rows)]))
    assert weights.flatten().tolist() == [-1.5, 0.5]
