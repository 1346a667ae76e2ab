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
def measured():
    """Two estimators on 24 prompts x 3 rollouts: moments, the teacher's values, mask."""
    mdp = TokenMDP(3, 3, seed=1, prompts=3)
    gradients = np.stack([mdp.gradients(KStep(k)) for k in (1, 2)])
    rows = torch.as_tensor(np.random.default_rng(0).integers(gradients.shape[1], size=72))
    rollouts, values = mdp.responses()
    prompts = torch.arange(24).repeat_interleave(3)
    moments = moments_of(torch.as_tensor(gradients)[:, rows], prompts, names=["K=1", "K=2"])
    return moments, values[rows], rollouts.mask[rows]


@pytest.mark.parametrize("theory", [False, True])
@pytest.mark.parametrize("rollouts", [1, 3])
def test_a_summary_forms_its_sums_once(measured, monkeypatch, rollouts, theory):
    moments, values, mask = measured
    formed = []
    sums = module.unit_sums
    monkeypatch.setattr(module, "unit_sums", lambda *a: formed.append(a) or sums(*a))
    options = {"prompts": 8, "rollouts_per_prompt": rollouts, "values": values, "mask": mask, "theory": theory}
    table = analysis.summarise(moments, **options).set_index("statistic")
    assert len(formed) == 1
    design = {"rollouts_per_prompt": rollouts}
    assert (table.loc["mse", "value"].to_numpy() == analysis.mse(moments, 8, **design).value).all()
    alone = analysis.efficiency(moments, 8 * rollouts, **design)
    assert (table.loc["efficiency", "low"].to_numpy() == alone.low).all()
    assert (table.loc["within", "value"].to_numpy() == analysis.decompose(moments).within.value).all()
