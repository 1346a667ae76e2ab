"""Any kernel afterwards: moments of the lag basis give those of every kernel, field by field."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from kvar.analysis.exact import TokenMDP
from kvar.gradients import gradient_moments
from kvar.gradients.recombine import recombine
from kvar.returns import Geometric, Immediate, KStep, LagKernel, kernel_coefficients, lag_basis, returns

KERNELS = [KStep(1), KStep(3, "free"), Geometric(0.7), Immediate(), LagKernel([1, 0.3, -0.2])]
NAMES = [k.name for k in KERNELS]


@pytest.mark.parametrize("baseline", [None, "teacher-value"])
def test_unforeseen_kernels_have_the_moments_of_a_measurement(baseline: str | None) -> None:
    mdp = TokenMDP(4, 6, seed=1, prompts=3, state="last-token")
    rollouts, values = mdp.sample(80, seed=0)
    basis, names = lag_basis(values, rollouts.mask, 6)
    recorded = gradient_moments(mdp.student, rollouts, basis, names)
    made = recombine(recorded, kernel_coefficients(KERNELS, 6, teacher_value=baseline is not None), NAMES)
    measured = gradient_moments(
        mdp.student, rollouts, returns(values, rollouts.mask, KERNELS, baseline=baseline), NAMES
    )
    for field in dataclasses.fields(measured["all"]):
        one, other = getattr(made["all"], field.name), getattr(measured["all"], field.name)
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    assert made.names == tuple(NAMES)


def test_anchored_combs_are_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="'K=2' is anchored"):
        kernel_coefficients([KStep(2)], 4)
    assert kernel_coefficients([KStep(1)], 3).tolist() == [[1.0, 1.0, 1.0, 1.0]]


def test_bad_input_is_named() -> None:
    mdp = TokenMDP(3, 3, seed=0)
    rollouts, values = mdp.sample(5, seed=0)
    moments = gradient_moments(mdp.student, rollouts, returns(values, rollouts.mask, KERNELS[:2]))
    with pytest.raises(ValueError, match=r"coefficients must be \(A, 2\)"):
        recombine(moments, torch.ones(1, 3), ["a"])
    with pytest.raises(ValueError, match="distinct names"):
        recombine(moments, torch.ones(2, 2), ["a", "a"])
    with pytest.raises(ValueError, match="lags must lie between"):
        lag_basis(values, rollouts.mask, 9)
    norms = gradient_moments(mdp.student, rollouts, returns(values, rollouts.mask, KERNELS[:1]), fields="norms")
    with pytest.raises(ValueError, match="fields='all'"):
        recombine(norms, torch.ones(1, 1), ["a"])
