"""Advantages over a step: kvar.returns' own where the step is one batch, the same when processes share it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kvar.distill.objectives.on_policy.advantages import TRAINING_BASELINES, advantages
from kvar.returns import KStep, TokenValues, minimum_variance, returns

MASK = torch.arange(5) < torch.tensor([5, 2, 4, 1, 3, 5])[:, None]
INDEX = torch.tensor([0, 0, 1, 1, 2, 2])


def step() -> tuple[TokenValues, Tensor]:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    v = q + torch.rand(6, 5, generator=generator, dtype=torch.float64)
    power = torch.rand(6, 5, generator=generator, dtype=torch.float64)
    return TokenValues(q.masked_fill(~MASK, 0.0), v.masked_fill(~MASK, 0.0)), power


@pytest.mark.parametrize("baseline", [None, *TRAINING_BASELINES])
def test_one_process(baseline: str | None) -> None:
    values, power = step()
    found = advantages(values, MASK, KStep(2), baseline, prompt_index=INDEX, sq_score_norm=power)
    named = baseline
    if baseline == "minimum-variance":
        named = lambda g, mask: minimum_variance(g, power, mask)[:, None, None]  # noqa: E731
    expected = returns(values, MASK, [KStep(2)], baseline=named, prompt_index=INDEX)[0]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert bool((found[~MASK] == 0).all())


@pytest.mark.parametrize("baseline", [None, *TRAINING_BASELINES])
def test_two_processes_that_share_a_step_get_the_rows_of_one(baseline: str | None) -> None:
    values, power = step()
    whole = advantages(values, MASK, KStep(2), baseline, prompt_index=INDEX, sq_score_norm=power)
    halves = (slice(0, 4), slice(4, 6))  # of different longest responses once padding is gone
    for mine, other in (halves, halves[::-1]):
        sent: list[Tensor] = []

        def part(rows: slice, all_sum: object) -> Tensor:
            width = int(MASK[rows].sum(1).max())
            return advantages(
                TokenValues(values.q[rows, :width], values.v[rows, :width]), MASK[rows, :width], KStep(2), baseline,
                prompt_index=INDEX[rows], sq_score_norm=power[rows, :width], positions=5, all_sum=all_sum,
            )  # type: ignore[arg-type]  # fmt: skip

        part(other, lambda x: sent.append(x) or x)  # noqa: B023
        found = part(mine, lambda x: x + sent[0])  # noqa: B023
        torch.testing.assert_close(found, whole[mine, : found.shape[1]], rtol=1e-12, atol=1e-12)


def test_minimum_variance_by_hand() -> None:
    """G = (1, 3) with |s|^2 = (1, 3): b = (1 + 9) / 4; the mean would be 2."""
    values = TokenValues(torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0], [3.0]]))
    mask, index = torch.ones(2, 1, dtype=torch.bool), torch.arange(2)
    power = torch.tensor([[1.0], [3.0]])
    found = advantages(values, mask, KStep(1), "minimum-variance", prompt_index=index, sq_score_norm=power)
    assert found.flatten().tolist() == [-1.5, 0.5]
    with pytest.raises(ValueError, match="needs sq_score_norm"):
        advantages(values, mask, KStep(1), "minimum-variance", prompt_index=index)
    with pytest.raises(ValueError, match="baseline 'critic' is unknown"):
        advantages(values, mask, KStep(1), "critic", prompt_index=index)
