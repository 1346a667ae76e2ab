"""Kernels: weights, names, equality, errors."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvar.returns import (
    LLMR,
    Geometric,
    Immediate,
    KStep,
    LagKernel,
    ScaledComb,
    Stepwise,
    Thinning,
    Window,
    kernel_coefficients,
    lag_sums,
    parse_kernel,
)
from tests.returns.returns_reference import KERNELS, ks, terminals

numbers = st.floats(-10, 10)


def test_llmr_equals_k_step_one():
    assert LLMR() == KStep(1)
    assert hash(LLMR()) == hash(KStep(1))
    assert LLMR().name == "K=1"


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.name)
def test_hashable_frozen_first_weight_one(kernel):
    assert {kernel: 1}[dataclasses.replace(kernel)] == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        kernel.k = 3
    assert kernel(0).item() == 1.0
    assert kernel([0, 0], remaining=[0, 5]).tolist() == [1.0, 1.0]


def test_all_kernels_have_their_own_name():
    assert len({kernel.name for kernel in KERNELS}) == len(KERNELS)


@pytest.mark.parametrize(
    ("kernel", "name", "weights"),
    [
        (KStep(3), "K=3", [1, 0, 0, 1, 0, 1]),
        (KStep(3, terminal="free"), "K=3 free", [1, 0, 0, 1, 0, 0]),
        (KStep(9), "K=9", [1, 0, 0, 0, 0, 1]),
        (LLMR(), "K=1", [1, 1, 1, 1, 1, 1]),
        (Immediate(), "immediate", [1, 0, 0, 0, 0, 0]),
        (Geometric(0.5), "geometric(0.5)", [1, 0.5, 0.25, 0.125, 0.0625, 0.03125]),
        (LagKernel((1, 0, 2)), "lags(1, 0, 2)", [1, 0, 2, 0, 0, 0]),
        (Stepwise([(1, -0.71), (3, 0.5)]), "stepwise(1:-0.71, 3:0.5)", [1, -0.71, -0.71, 0.5, 0.5, 0.5]),
        (Stepwise([(2, 0)]), "stepwise(2:0)", [1, 1, 0, 0, 0, 0]),
    ],
)
def test_weights_and_names(kernel, name, weights):
    assert kernel.name == name
    got = kernel(torch.arange(6), remaining=5)
    assert got.dtype == torch.float64
    assert got.tolist() == weights


def test_weights_outside_the_response_are_zero():
    for kernel in (KStep(1), Geometric(1.0), LagKernel([1] * 9)):
        assert kernel([-1, 0, 2, 3, 4], remaining=3).tolist() == [0, 1, 1, 1, 0]
    assert KStep(2)([4, 5]).tolist() == [1, 0]  # without an end no lag is the last


@given(ks, terminals)
def test_k_step_names_are_read_back(k, terminal):
    assert parse_kernel(KStep(k, terminal).name) == KStep(k, terminal)


@given(st.floats(0, 1), st.lists(numbers, max_size=4))
def test_other_names_are_read_back(lam, weights):
    steps = Stepwise([(3, lam), *((4 + 2 * i, weight) for i, weight in enumerate(weights))])
    for kernel in (Immediate(), Geometric(lam), LagKernel([1, *weights]), steps):
        assert parse_kernel(kernel.name) == kernel


@pytest.mark.parametrize(
    ("text", "kernel"),
    [
        ("4", KStep(4)),
        (" K=4 ", KStep(4)),
        ("k = 4", KStep(4)),
        ("4-free", KStep(4, "free")),
        ("K=4 free", KStep(4, "free")),
        ("K=4-anchored", KStep(4)),
        ("llmr", LLMR()),
        ("LLMR", LLMR()),
        ("inf", Immediate()),
        ("K=inf", Immediate()),
        ("Infinity", Immediate()),
        ("immediate", Immediate()),
        ("geometric(0.95)", Geometric(0.95)),
        ("geometric( .5 )", Geometric(0.5)),
        ("lags(1,0,-2e-1)", LagKernel([1, 0, -0.2])),
        ("window( 3 )", Window(3)),
        ("Scaled-Comb(4)", ScaledComb(4)),
        ("Stepwise(1: -7.1e-1,3:.5)", Stepwise([(1, -0.71), (3, 0.5)])),
        ("thinning(4)", Thinning(4)),
        ("thinning(4, 2)", Thinning(4, 2)),
        (4, KStep(4)),
        (math.inf, Immediate()),
        (KStep(2), KStep(2)),
    ],
)
def test_parse(text, kernel):
    assert parse_kernel(text) == kernel


@pytest.mark.parametrize("text", ["", "K", "four", "4-loose", "2.5", "geometric", "free"])
def test_parse_unknown(text):
    with pytest.raises(ValueError, match=r"kernel .* is unknown; use for instance 'K=4'"):
        parse_kernel(text)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("0", "at least 1; got 0"),
        ("K=-2", "at least 1; got -2"),
        (2.5, "got 2.5"),
        (True, "got True"),
        (None, "got None"),
        ("geometric(2)", r"in \[0, 1\]; got 2.0"),
        ("geometric(x)", "not a comma-separated list of numbers"),
        ("lags(2, 1)", "must be 1; got 2.0"),
        ("window(0)", "Window: length must be an integer of at least 1; got 0"),
        ("window(2.5)", "'2.5' is not made of integers"),
        ("stepwise(1:0.5, 2)", "not a comma-separated list of lag:weight"),
        ("stepwise(0:1)", "ascending from 1 .* got 0 after 0"),
        ("stepwise(3:1, 2:1)", "got 2 after 3"),
        ("stepwise(2:inf)", "weight from lag 2 must be a finite number; got inf"),
        ("scaled-comb(0)", "ScaledComb: k must be an integer of at least 1; got 0"),
        ("thinning(0)", "Thinning: k must be an integer of at least 1; got 0"),
        ("thinning(2, -1)", "Thinning: seed must be an integer of at least 0; got -1"),
        ("thinning(2, 1, 1)", "thinning takes 2 numbers; got 3"),
        ("geometric(0.5, 0.5)", "geometric takes 1 number; got 2"),
    ],
)
def test_parse_out_of_range(text, match):
    with pytest.raises(ValueError, match=match):
        parse_kernel(text)


@pytest.mark.parametrize("k", [0, -1, 2.5, 2.0, True, "4", None, math.inf, math.nan])
def test_bad_k(k):
    with pytest.raises(ValueError, match=r"k must be an integer of at least 1; got .*Immediate"):
        KStep(k)


def test_numpy_integers_are_integers():
    assert KStep(np.int64(4)) == KStep(4)
    assert type(KStep(np.int64(4)).k) is int


def test_bad_terminal():
    with pytest.raises(ValueError, match=r"terminal='loose' is unknown; choose one of anchored, free"):
        KStep(2, terminal="loose")


@pytest.mark.parametrize("lam", [-0.1, 1.01, math.nan, math.inf, "0.5", True, None])
def test_bad_lam(lam):
    with pytest.raises(ValueError, match=r"lam must be a number in \[0, 1\]; got"):
        Geometric(lam)


@pytest.mark.parametrize("weights", [[], [0.5, 1], [0], [-1.0]])
def test_first_weight_must_be_one(weights):
    with pytest.raises(ValueError, match=r"the first weight, w_0, must be 1; got .*Divide"):
        LagKernel(weights)


@pytest.mark.parametrize("weights", [[1, math.nan], [1, math.inf], [1, "a"], [1, True]])
def test_weights_must_be_finite_numbers(weights):
    with pytest.raises(ValueError, match=r"weights\[1\] must be a finite number; got"):
        LagKernel(weights)


def test_weights_from_a_tensor_or_array():
    assert LagKernel(torch.tensor([1.0, 0.5])) == LagKernel(np.array([1.0, 0.5])) == LagKernel((1, 0.5))


def test_thinning_keeps_each_lag_with_its_probability_and_rows_apart() -> None:
    draws = Thinning(4, seed=3).draws(4000, 6)
    assert bool((draws[:, 0] == 1).all()) and set(draws[:, 1:].unique().tolist()) == {0.0, 4.0}
    kept = (draws[:, 1:] > 0).double()
    assert float((kept.mean(dim=0) - 0.25).abs().max()) < 5 * (0.25 * 0.75 / 4000) ** 0.5
    cov = torch.cov(kept.T)
    assert float((cov - torch.diag(cov.diagonal())).abs().max()) < 5 * 0.1875 / 4000**0.5
    assert float(torch.corrcoef(torch.stack([kept[:-1, 0], kept[1:, 0]]))[0, 1].abs()) < 5 / 4000**0.5
    assert not torch.equal(draws, Thinning(4, seed=4).draws(4000, 6))


def test_thinned_sums_use_each_rows_own_draws_whatever_the_padding() -> None:
    kernel = Thinning(2, seed=1)
    u = torch.arange(1.0, 16.0).view(3, 5)
    mask = torch.ones(3, 5, dtype=torch.bool)
    w = kernel.draws(3, 5)
    by_hand = [[sum(float(w[i, j] * u[i, t + j]) for j in range(5 - t)) for t in range(5)] for i in range(3)]
    assert lag_sums(u, mask, [kernel])[0].tolist() == by_hand
    padded = lag_sums(torch.nn.functional.pad(u, (0, 2)), torch.nn.functional.pad(mask, (0, 2)), [kernel])
    assert padded[0, :, :5].tolist() == by_hand
    assert lag_sums(u, mask, [Thinning(1)])[0].tolist() == lag_sums(u, mask, [KStep(1)])[0].tolist()
    with pytest.raises(ValueError, match="at random"):
        kernel_coefficients([kernel], 3)
