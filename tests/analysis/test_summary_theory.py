"""Theory beside measurement in the summary of a probe."""

from __future__ import annotations

import numpy as np
import torch

from kvar.analysis import noise_scale, norm_test, score_power, summarise, variance_per_score_power
from kvar.analysis.exact import TokenMDP
from kvar.analysis.frames.summary import STATISTICS, THEORY_STATISTICS
from kvar.analysis.theory import calibrate
from kvar.gradients import gradient_moments
from kvar.returns import Immediate, KStep, parse_kernel, returns

NAMES = ["K=1", "K=2", "immediate", "K=1 - batch-mean"]


def test_calibration_rows_are_those_of_calibrate_and_unknown_for_baselines() -> None:
    mdp = TokenMDP(3, 5, seed=1, prompts=5, state="last-token")
    rollouts, values = mdp.sample(60, seed=0)
    mask = rollouts.mask
    plain = [KStep(1), KStep(2), Immediate()]
    g = returns(values, mask, plain)
    weights = torch.cat([g, (g[:1] - g[:1][:, mask].mean()) * mask])
    moments = gradient_moments(mdp.student, rollouts, weights, names=NAMES, engine="loop", score_power=True)
    kernels = [parse_kernel(name.partition(" - ")[0]) for name in NAMES]
    rows = summarise(moments, values=values, mask=mask, kernels=kernels, batch=16, theory=True)
    assert set(rows["statistic"]) == {*STATISTICS, *THEORY_STATISTICS}
    of = {name: part.set_index("kernel") for name, part in rows.groupby("statistic")}
    table = calibrate(moments, values, mask, kernels)
    table = table[table["scale"] == "relative"]
    for level in ("T0", "T1"):
        own = table[table["level"] == level].set_index("kernel")
        found = of[f"calibration_{level.lower()}"]
        for column, theirs in (("value", "calibration"), ("low", "low"), ("high", "high")):
            np.testing.assert_allclose(found[column][NAMES[:3]], own[theirs][NAMES[:3]])
            assert np.isnan(found[column][NAMES[3]])
        ratio = of[f"trace_ratio_{level.lower()}"]["value"]
        np.testing.assert_allclose(ratio[NAMES[:3]], own["predicted"][NAMES[:3]])
        np.testing.assert_allclose(found["value"] * of["trace_ratio"]["value"], ratio)
    np.testing.assert_allclose(of["score_power"]["value"], score_power(moments).value[0])
    np.testing.assert_allclose(of["variance_per_score_power"]["value"], variance_per_score_power(moments).value)
    test, scale = norm_test(moments, batch=16), noise_scale(moments)
    for column in ("value", "low", "high"):
        np.testing.assert_allclose(of["norm_test"][column], getattr(test, column))
        np.testing.assert_allclose(of["noise_scale"][column], getattr(scale, column))
    quick = summarise(moments, values=values, mask=mask, kernels=kernels, batch=16)
    assert set(quick["statistic"]) == set(STATISTICS)
