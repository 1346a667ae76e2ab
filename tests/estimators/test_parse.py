"""Names: what they mean, that they read back, and what is said of those that are none."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kvar.estimators import (
    BASELINES,
    JSD,
    Estimator,
    Gap,
    K3Loss,
    LogRatio,
    NextTokenReward,
    PPOClip,
    Ratio,
    Score,
    SequenceRatio,
    TokenReward,
    TopK,
    Truncated,
    parse_estimators,
    parse_reward,
)
from kvar.hooks import Estimator as HooksEstimator
from kvar.hooks import parse_estimators as parse_for_hooks
from kvar.returns import LLMR, Geometric, Immediate, Kernel, KStep, LagKernel, ScaledComb, Thinning, Window


@pytest.mark.parametrize(
    ("text", "estimator"),
    [
        ("K=4", Estimator(KStep(4))),
        ("4-free", Estimator(KStep(4, "free"))),
        ("K=1 - leave-one-out", Estimator(KStep(1), "leave-one-out")),
        (
            "gap K=1 exact expected - leave-one-out",
            Estimator(KStep(1), "leave-one-out", Gap(), immediate="exact", future="expected"),
        ),
        (
            "gap K=1 expected exact - leave-one-out",
            Estimator(KStep(1), "leave-one-out", Gap(), immediate="exact", future="expected"),
        ),
        ("kl immediate exact", Estimator(Immediate(), None, LogRatio(), immediate="exact")),
        ("kl immediate sampled", Estimator(Immediate(), None, LogRatio())),
        ("KL  Immediate centered", Estimator(Immediate(), None, LogRatio(), immediate="centred")),
        ("kl geometric(0.9) - leave-one-out", Estimator(Geometric(0.9), "leave-one-out", LogRatio())),
        ("score - leave-one-out", Estimator(LLMR(), "leave-one-out", Score())),
        ("kl exact K = 4 free ratio", Estimator(KStep(4, "free"), None, LogRatio(), "exact", correction=Ratio())),
        ("gap lags(1, 0.5) truncated(3)", Estimator(LagKernel([1, 0.5]), None, Gap(), correction=Truncated(3.0))),
    ],
)
def test_meaning(text: str, estimator: Estimator) -> None:
    assert parse_estimators(text) == [estimator]


def test_commas_part_names_but_not_inside_parentheses() -> None:
    text = "K=1, lags(1, 0.5), kl thinning(2, 7) expected - leave-one-out"
    names = [e.name for e in parse_estimators(text)]
    assert names == ["K=1", "lags(1, 0.5)", "kl thinning(2, 7) expected - leave-one-out"]
    assert [e.name for e in parse_estimators(names)] == names


kernels = st.sampled_from(
    [
        KStep(1),
        KStep(3),
        KStep(4, "free"),
        Immediate(),
        Geometric(0.9),
        LagKernel([1, 0.5]),
        Window(3),
        ScaledComb(2),
        Thinning(2),
        Thinning(4, 7),
    ]
)
rewards = st.sampled_from([None, Gap(), LogRatio(), Score(), JSD(0.3), K3Loss(), TopK(3), TopK(4, "teacher", True)])
corrections = st.sampled_from([None, Ratio(), Truncated(2.5), PPOClip(0.1), SequenceRatio()])


@settings(max_examples=200)
@given(
    kernels, rewards, st.sampled_from(["sampled", "centred", "exact"]), st.sampled_from(["sampled", "expected"]),
    corrections, st.sampled_from([None, "teacher-value", *BASELINES]),
)  # fmt: skip
def test_every_name_reads_back(kernel, reward, immediate, future, correction, baseline) -> None:
    try:
        estimator = Estimator(kernel, baseline, reward, immediate, future, correction)
    except ValueError:
        return
    assert parse_estimators(estimator.name) == [estimator]
    assert parse_estimators([estimator.name]) == [estimator]


def test_hooks_estimators_are_these() -> None:
    assert HooksEstimator is Estimator


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("kl immediate exat", r"the word 'exat' is unknown \(did you mean 'exact'\?\)"),
        ("kll K=1", r"the word 'kll' is unknown \(did you mean 'kl'\?\)"),
        ("geometrc(0.9)", r"'geometrc\(0.9\)' is unknown \(did you mean 'geometric'\?\)"),
        ("K=1 - leave-one-ot", r"baseline 'leave-one-ot' is unknown \(did you mean 'leave-one-out'\?\)"),
        ("kl K=1 leave-one-out", "baseline 'leave-one-out' follows a dash"),
        ("K=1 kl", "reward 'kl' stands first"),
        ("gap exact", "names no kernel"),
        ("K=1 exact", "exact needs a reward's name first, for instance 'gap K=1 exact'"),
        ("score exact", "reward 'score' is known for sampled tokens alone"),
        ("score expected", "reward 'score' is known for sampled tokens alone"),
        ("kl immediate exact ppo-clip(0.2)", "clips the advantage of a sampled token"),
        ("gap K=1 - teacher-value", "baseline 'teacher-value' is V_t of"),
        ("gap K=2 expected", "kernel 'K=2' looks at where the response ends"),
        ("jsd immediate", r"jsd takes a number, for instance 'jsd\(0.5\)'"),
        ("jsd(2) immediate", "beta must lie between 0 and 1; got 2.0"),
        ("kl(3) immediate", "kl takes no number"),
        ("top-k(x) immediate", "'top-k\\(x\\)' needs an integer in range"),
        ("kl K=0", "k must be an integer of at least 1; got 0"),
        ("kl K=1 exact centred", "'centred' is a second immediate term"),
        ("- leave-one-out", "the word '-' is unknown"),
        ("", "estimators are empty"),
        ("K=1, 1", "K=1 twice"),
    ],
)
def test_what_does_not_parse_is_named(text: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        parse_estimators(text)


@pytest.mark.parametrize("parse", [parse_estimators, parse_for_hooks])
def test_what_holds_no_names_is_refused(parse) -> None:
    with pytest.raises(TypeError, match="estimators must be names, for instance .*; got NoneType"):
        parse(None)


def test_rewards_and_kernels_of_ones_own() -> None:
    @dataclass(frozen=True)
    class Half(Kernel):
        @property
        def name(self) -> str:
            return "half"

        def _weights(self, lags: Tensor, remaining: Tensor | None) -> Tensor:
            return (lags == 0) + 0.5 * (lags > 0)

    @dataclass(frozen=True)
    class Plain(NextTokenReward):
        @property
        def name(self) -> str:
            return "plain"

        def table(self, teacher: Tensor, student: Tensor) -> Tensor:
            return teacher

    short = TokenReward("short", lambda rollouts: -rollouts.mask.float())
    found = parse_estimators("plain half exact, short K=1", rewards=[Plain(), short], kernels=[Half()])
    assert found == [Estimator(Half(), None, Plain(), "exact"), Estimator(KStep(1), None, short)]
    with pytest.raises(ValueError, match=r"'plai' is unknown"):
        parse_estimators("plai half", rewards=[Plain()], kernels=[Half()])
    with pytest.raises(ValueError, match=r"reward 'klx' is unknown \(did you mean 'kl'"):
        parse_reward("klx")
    assert parse_reward("jsd(0.5)") == JSD(0.5)


@pytest.mark.parametrize("change", [{"immediate": "half"}, {"future": "exact"}, {"baseline": "mean"}])
def test_bad_fields(change: dict) -> None:
    with pytest.raises(ValueError, match="must be one of|is unknown"):
        Estimator(**{"kernel": KStep(1), "reward": Gap(), **change})
