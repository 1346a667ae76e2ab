"""Estimators beyond q and V through the measurement's one way: against the engine fed by hand, records, bad input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import kvar
from kvar.analysis.frames.recorded import by_position_of, statistics_of
from kvar.estimators import gather, parse_estimators
from kvar.gradients import gradient_moments
from kvar.hooks import GradientProbe
from kvar.records import RunWriter
from tests.cases import ragged_prompts, tiny_gpt2, tiny_t5

NAMES = (
    "K=1, K=2 - leave-one-out, immediate, kl immediate exact, gap K=1 exact expected - leave-one-out, "
    "kl geometric(0.9) centred - position-optimum, score - leave-one-out"
)


def score(rollouts: Any) -> Any:
    return (rollouts.tokens * rollouts.mask).sum(dim=1) % 5


def measured(make: Any = tiny_gpt2, names: Any = NAMES, **options: Any) -> tuple[Any, Any, Any]:
    student, teacher = make().double(), make(seed=1).double()
    given = {"rollouts_per_prompt": 2, "max_new_tokens": 5, "score": score, **options}
    return kvar.measure(student, teacher, ragged_prompts(4), kernels=names, **given), student, teacher


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_t5])
def test_it_is_the_engine_on_what_was_gathered(make: Any) -> None:
    m, student, teacher = measured(make, micro_batch=3)
    estimators = parse_estimators(NAMES)
    evidence = gather(student, teacher, m.rollouts, score, estimators=estimators)
    truth = gradient_moments(student, m.rollouts, (evidence, estimators), engine="loop")
    assert m.names == truth.names == tuple(e.name for e in estimators)
    scale = float(truth.sq_norm.max())
    for field in ("pair", "cross", "mean_pair", "prompt_pair"):
        torch.testing.assert_close(getattr(m.moments, field), getattr(truth, field), rtol=1e-5, atol=1e-6 * scale)


def test_kernels_of_the_gap_are_what_they_are_alone() -> None:
    m, _, _ = measured()
    alone, _, _ = measured(names="K=1, K=2 - leave-one-out, immediate")
    torch.testing.assert_close(m.moments.pair[:3, :3], alone.moments.pair, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(m.values.q, alone.values.q)
    same, _, _ = measured(names=parse_estimators(NAMES))
    assert torch.equal(same.moments.pair, m.moments.pair)


def test_a_reward_in_place_of_a_teacher_serves_kernels_and_scores() -> None:
    options = {"reward": lambda r: r.tokens.double(), "score": score, "rollouts_per_prompt": 2, "max_new_tokens": 5}
    probe = GradientProbe(ragged_prompts(), "K=1, immediate, score - leave-one-out", **options)
    m = probe.measure(tiny_t5())
    alone = GradientProbe(ragged_prompts(), "K=1, immediate", **{**options, "score": None}).measure(tiny_t5())
    torch.testing.assert_close(m.moments.pair[:2, :2], alone.moments.pair, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="estimator 'kl immediate exact' needs teacher="):
        GradientProbe(ragged_prompts(), "kl immediate exact", reward=lambda r: r.log_probs)


def test_records_pages_and_ranges_take_every_name(tmp_path: Path) -> None:
    """K, and what theory predicts, are blank for names that say more than a kernel of the gap."""
    with RunWriter(tmp_path, {"parameters": 1}) as writer:
        probe = GradientProbe(
            ragged_prompts(4), NAMES, teacher=tiny_t5(seed=1), score=score, rollouts_per_prompt=2, max_new_tokens=5,
            writer=writer, position_bins=2,
        )  # fmt: skip
        m = probe.measure(tiny_t5())
        probe.record(m)
    means, names = m.moments.mean_pair, m.names
    for whole in ("kl immediate exact", "score - leave-one-out"):
        parts = [i for i, name in enumerate(names) if name.startswith(f"{whole} @")]
        at = names.index(whole)
        assert len(parts) == 2 and float(means[parts][:, parts].sum()) == pytest.approx(float(means[at, at]), rel=1e-4)
    run = kvar.load(tmp_path)
    frame = statistics_of(run, "tiny", theory=True, reference="K=1")
    assert list(dict.fromkeys(frame["kernel"])) == [e.name for e in parse_estimators(NAMES)]
    of = frame[frame["group"] == "all"].pivot(index="kernel", columns="statistic", values="value")
    k = frame.groupby("kernel")["k"].first()
    assert k["K=1"] == 1 and np.isinf(k["immediate"]) and k.notna().sum() == 2
    plain = ["K=1", "immediate"]
    for statistic in ("trace_ratio_t0", "trace_ratio_t1", "calibration_t0"):
        assert of.loc[plain, statistic].notna().all() and of.drop(plain)[statistic].isna().all()
    assert of["bias_sq"].notna().all() and of.loc["K=1", "bias_sq"] == 0
    assert "kl immediate exact" in set(by_position_of(run, "tiny")["kernel"])


def test_a_measurement_without_a_kernel_of_the_gap_is_shown_too(tmp_path: Path) -> None:
    m, _, _ = measured(names="kl immediate exact, kl 1 expected exact - leave-one-out")
    table = m.table(8)
    assert table["trace_ratio_t0"].isna().all() and (table["trace"] > 0).all()
    assert kvar.load(m.save(tmp_path)).table(8).equals(table)
    assert "kl immediate exact" in str(m) and "kl immediate exact" in m._repr_html_()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda r: torch.full((len(r),), float("nan")), r"score\(rollouts\) is nan for response 0"),
        (lambda r: [1.0, 2.0], r"one number for each of N = 8 responses; got shape \(2,\)"),
        (lambda r: [0.5] * len(r), r"score\(rollouts\) is 0.5 for all 8 responses, so it has no gradient"),
        (lambda r: "good", r"score\(rollouts\) must give one number a response; got str"),
    ],
)
def test_scores_that_are_none_get_one_line(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        measured(names="score - leave-one-out", score=given)
    assert "\n" not in str(caught.value)


def test_a_teacher_that_gives_its_best_tokens_alone_is_named() -> None:
    student, teacher = tiny_gpt2(), tiny_gpt2(seed=1)

    def cut(module: Any, args: Any, output: Any) -> Any:
        kept = torch.full_like(output.logits, -torch.inf)
        best = output.logits.topk(3, dim=-1)
        return replace(output, logits=kept.scatter(-1, best.indices, best.values))

    teacher.register_forward_hook(cut)
    with pytest.raises(ValueError, match="reward 'kl' is not finite for token .* gives the logits of its best tokens"):
        kvar.measure(student, teacher, ragged_prompts(), kernels="kl immediate exact", max_new_tokens=5)
