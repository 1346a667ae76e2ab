"""Intervals toward J, J_kl, the score and the data hold the enumerated truth as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from tests.analysis.target_coverage import coverage, tables, truth


def test_the_enumeration_agrees_with_the_token_mdp() -> None:
    """Batches of responses give the means and variances that kvar.analysis.exact sums for one response."""
    from kvar.analysis.exact import TokenMDP
    from kvar.estimators import parse_estimators
    from tests.analysis.target_coverage import BATCH, DESIGNS

    d = DESIGNS["four rollouts"]
    mdp = TokenMDP(d.vocabulary, d.horizon, d.seed, d.prompts, d.state, policy_scale=d.policy_scale)
    names = [name for name in tables("four rollouts").names if name.split(" ")[0] not in ("score", "data")]
    exact = [mdp.exact(e, rollouts_per_prompt=d.rollouts) for e in parse_estimators(names)]
    efficiency, bias, distance = truth("four rollouts")
    target = {"J": exact[3].mean, "J_kl": exact[4].mean}
    for name, of in zip(names, exact, strict=True):
        for toward, g in target.items():
            along, power = float(of.mean @ g), float(of.mean @ of.mean)
            c = along / float(((power + of.trace / BATCH) * (g @ g)) ** 0.5)
            assert efficiency[toward, name] == pytest.approx(c * abs(c), rel=1e-9, abs=1e-12)
            c = along / float((power * (g @ g)) ** 0.5)
            assert bias[toward, name] == pytest.approx(1 - c * abs(c), rel=1e-9, abs=1e-12)
            assert distance[toward, name] == pytest.approx(float((of.mean - g) @ (of.mean - g)), rel=1e-9, abs=1e-12)


def test_intervals_cover() -> None:
    found = coverage("a row a prefix", 96, 60)
    told = found["resolved"] > 0.9
    assert told[[0, 1, 2]].all()  # J, J_kl and the score
    for name in ("efficiency", "bias", "distance"):
        shares = found[name][told]
        assert shares.mean() > 0.93, (name, shares)
        assert shares.min() > 0.83, (name, shares)  # of 60 draws
    assert found["wrong"].max() <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("design", ["unrelated targets", "a row a prefix", "peaked policy"])
def test_intervals_cover_with_as_many_prompts_as_is_said(design: str) -> None:
    """With 256 prompts; the table of docs/theory.md, section 9, has the designs that take more."""
    found = coverage(design, 256, 200)
    told = (found["resolved"] > 0.95)[:, None]
    assert told[[0, 1, 3]].all()
    for name in ("efficiency", "bias", "distance"):
        shares = found[name][told & (~found["exact"] | (name == "efficiency"))]
        assert 0.93 <= np.median(shares) <= (1.0 if name == "bias" else 0.98), (name, shares)  # wide where it errs
        assert shares.min() >= 0.87, (name, shares)  # of 200 draws, over up to 28 pairs
    assert found["wrong"].max() <= 0.03
