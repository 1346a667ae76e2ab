"""The sums that statistics of one measurement share are formed once, and give each statistic's own numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import kvar.analysis as analysis
from kvar.analysis import replicates as module
from kvar.analysis.exact import TokenMDP, moments_of
from kvar.returns import KStep


@pytest.fixture(scope="module")
def moments():
    """Two estimators on 24 prompts x 3 rollouts."""
    mdp = TokenMDP(3, 3, seed=1, prompts=3)
    gradients = np.stack([mdp.gradients(KStep(k)) for k in (1, 2)])
    rows = np.random.default_rng(0).integers(gradients.shape[1], size=72)
    return moments_of(torch.as_tensor(gradients[:, rows]), torch.arange(24).repeat_interleave(3))


@pytest.mark.parametrize("rollouts", [1, 3])
def test_a_summary_forms_its_sums_once(moments, monkeypatch, rollouts):
    formed = []
    sums = module.unit_sums
    monkeypatch.setattr(module, "unit_sums", lambda *a: formed.append(a) or sums(*a))
    table = analysis.summarise(moments, prompts=8, rollouts_per_prompt=rollouts).set_index("statistic")
    assert len(formed) == 1
    design = {"rollouts_per_prompt": rollouts}
    assert (table.loc["mse", "value"].to_numpy() == analysis.mse(moments, 8, **design).value).all()
    alone = analysis.efficiency(moments, 8 * rollouts, **design)
    assert (table.loc["efficiency", "low"].to_numpy() == alone.low).all()
    assert (table.loc["within", "value"].to_numpy() == analysis.decompose(moments).within.value).all()
