"""Calibration and breakdown: identities, intervals that cover, the right term named where an assumption is broken."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from kvar.analysis import theory, trace_covariance
from kvar.analysis.exact import TokenMDP, moments_of
from kvar.gradients import GradientMoments
from kvar.returns import Immediate, KStep, TokenValues, returns

KERNELS = [KStep(1), KStep(2), KStep(4), Immediate()]
NAMES = ["K=1", "K=2", "K=4", "immediate"]
T, P = 8, 60


def made(n: int, seed: int, kind: str = "iid") -> tuple[GradientMoments, TokenValues, Tensor, Tensor]:
    """Gradients built from random scores, with one of T0's assumptions broken."""
    g = torch.Generator().manual_seed(seed)
    noise = torch.rand(n, T + 2, generator=g, dtype=torch.float64)
    noise = 2 * noise - 1  # soft gaps have any sign; without a mean, the variance is what counts
    gap = noise[:, 2:]
    q = torch.randn(n, T, generator=g, dtype=torch.float64) / 2
    scores = torch.randn(n, T, P, generator=g, dtype=torch.float64) / P**0.5
    if kind == "autocorrelated":
        gap = (noise[:, 2:] + noise[:, 1:-1] + noise[:, :-2]) / 3**0.5
    if kind == "position":
        gap = gap * torch.linspace(0.2, 2.0, T)
    if kind == "score":
        q = q - 2 * gap  # as q = V - gap does: the token's own gap, on which its score depends
        scores = scores * (0.2 + gap.abs())[..., None]
    if kind == "pairs":
        scores = (scores + scores[:, :1]) / 2**0.5
    if kind == "q":
        q = q - (gap.flip(1).cumsum(1).flip(1) - gap)
    mask = torch.ones(n, T, dtype=torch.bool)
    values = TokenValues(q=q, v=q + gap)
    weights = returns(values, mask, KERNELS)
    moments = moments_of(torch.einsum("ent,ntp->enp", weights, scores), names=NAMES)
    return moments, values, mask, scores.pow(2).sum(-1)


def table(n: int, kind: str) -> dict[str, np.ndarray]:
    moments, values, mask, power = made(n, 0, kind)
    frame = theory.breakdown(moments, values, mask, KERNELS, power)
    return {str(term): rows["share"].to_numpy() for term, rows in frame.groupby("term")}


def test_the_terms_add_up_to_the_measured_trace() -> None:
    for kind in ("iid", "autocorrelated", "score"):
        moments, values, mask, power = made(300, 1, kind)
        frame = theory.breakdown(moments, values, mask, KERNELS, power)
        total = frame[frame["term"] == "trace"]["value"].to_numpy()
        np.testing.assert_allclose(total, trace_covariance(moments).value, rtol=1e-10)
        parts = frame[frame["term"].isin(theory.TERMS)].groupby("kernel", sort=False)["value"].sum().to_numpy()
        np.testing.assert_allclose(parts, total, rtol=1e-10)
        t0 = theory.predict(values, mask, KERNELS, sq_score=power)
        np.testing.assert_allclose(frame[frame["term"] == "T0"]["value"].to_numpy(), t0["trace"], rtol=1e-10)


@pytest.mark.parametrize(
    ("kind", "term"),
    [
        ("autocorrelated", "gap autocorrelation"),
        ("q", "gap and q"),
        ("position", "position"),
        ("score", "gap and score"),
        ("pairs", "pairs of tokens"),
    ],
)
def test_the_broken_assumption_is_the_term_that_counts(kind: str, term: str) -> None:
    fine, broken = table(6000, "iid"), table(6000, kind)
    corrections = [name for name in theory.TERMS if name not in ("T0", "squared mean")]
    assert max(abs(fine[name][0]) for name in corrections) < 0.05
    assert max(corrections, key=lambda name: abs(broken[name][0])) == term
    assert abs(broken[term][0]) > 0.05


def test_calibration_is_one_where_the_theory_holds() -> None:
    moments, values, mask, power = made(3000, 3)
    frame = theory.calibrate(moments, values, mask, KERNELS, power)
    assert set(frame["scale"]) == {"absolute", "relative"} and set(frame["level"]) == {"T0", "T1"}
    assert ((frame["low"] <= 1 + 1e-9) & (frame["high"] >= 1 - 1e-9)).mean() > 0.7
    np.testing.assert_allclose(frame["calibration"], 1.0, atol=0.08)
    own = frame[(frame["kernel"] == "K=1") & (frame["scale"] == "relative")]
    np.testing.assert_allclose(own[["calibration", "low", "high"]].to_numpy(), 1.0)


def test_calibration_matches_the_prediction_and_its_first_order_replicates_the_jackknife() -> None:
    moments, values, mask, power = made(60, 4, "autocorrelated")
    frame = theory.calibrate(moments, values, mask, KERNELS, power)
    one = frame[(frame["level"] == "T1") & (frame["scale"] == "absolute")]
    plain = theory.predict(values, mask, KERNELS, level="T1", sq_score=power, moments=moments)
    np.testing.assert_allclose(one["predicted"], plain["trace"], rtol=1e-10)
    np.testing.assert_allclose(one["measured"], plain["measured_trace"], rtol=1e-10)
    # leave each trajectory out for real
    kept = [torch.arange(60) != i for i in range(60)]
    left = np.array(
        [
            theory.predict(TokenValues(values.q[k], values.v[k]), mask[k], KERNELS, level="T1", sq_score=power[k])[
                "trace"
            ].to_numpy()
            for k in kept
        ]
    )
    whole = theory.predict(values, mask, KERNELS, level="T1", sq_score=power)["trace"].to_numpy()
    from kvar.analysis.theory.law import score_power_by_position
    from kvar.analysis.theory.prediction import predicted_second_moment

    first_order = theory.weighted_replicates(
        lambda w: predicted_second_moment(
            values.q, values.gap, mask, score_power_by_position(power, mask), KERNELS, "T1", w
        ),
        np.arange(60),
        60,
    )
    np.testing.assert_allclose(first_order[0], whole, rtol=1e-10)
    spread = [np.sqrt(59 / 60 * ((x - x.mean(axis=0)) ** 2).sum(axis=0)) for x in (left, first_order[1:])]
    np.testing.assert_allclose(spread[0], spread[1], rtol=0.08)


def test_calibration_intervals_cover() -> None:
    """The quotient for an infinite sample lies in 95 % of intervals, in a case where T0 is wrong."""
    moments, values, mask, power = made(60_000, 99, "autocorrelated")
    truth = theory.calibrate(moments, values, mask, KERNELS, power)["calibration"].to_numpy()
    repeats, hits = 200, np.zeros(len(truth))
    for seed in range(repeats):
        *drawn, power = made(150, seed, "autocorrelated")
        found = theory.calibrate(*drawn, KERNELS, power)
        hits += (found["low"] <= truth) & (truth <= found["high"])
    free = truth != 1.0
    share = hits[free] / repeats
    assert ((share > 0.91) & (share < 0.985)).all(), share


def test_clusters_of_rollouts_are_left_out_together() -> None:
    mdp = TokenMDP(3, 5, seed=2, prompts=40)
    rollouts, values = mdp.sample(240, seed=0)
    gradients = torch.stack([mdp.gradients(k) for k in KERNELS])
    every, _ = mdp.responses()
    lookup = {
        (int(p), tuple(t)): i for i, (p, t) in enumerate(zip(every.prompt_index, every.tokens.tolist(), strict=True))
    }
    rows = [lookup[int(p), tuple(t)] for p, t in zip(rollouts.prompt_index, rollouts.tokens.tolist(), strict=True)]
    moments = moments_of(gradients[:, rows], rollouts.prompt_index, NAMES)
    frame = theory.calibrate(moments, values, rollouts.mask, KERNELS, unit="prompt")
    assert set(frame["scale"]) == {"relative"}
    assert (frame["n"] == len(rollouts.prompt_index.unique())).all()
    assert (frame["low"] <= frame["calibration"]).all()


def test_bad_input_is_named() -> None:
    moments, values, mask, power = made(30, 0)
    with pytest.raises(ValueError, match="sq_score must be"):
        theory.breakdown(moments, values, mask, KERNELS, power[:, 0])
    with pytest.raises(ValueError, match="4 estimators for 1 kernels"):
        theory.calibrate(moments, values, mask, KERNELS[:1])
