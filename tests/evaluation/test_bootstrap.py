"""Bootstrap intervals: right against closed forms, and covering as often as they say on synthetic data."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kvar.evaluation.bootstrap import difference, intervals
from kvar.tasks import mean_score, ratio_score
from kvar.tasks.scores.bleu import bleu_score, chrf_score


def test_a_means_interval_is_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(3, 2, 2000)
    found = intervals({"x": mean_score(values)}, resamples=2000)["x"]
    half = 1.96 * values.std() / math.sqrt(2000)
    assert found.value == pytest.approx(values.mean()) and found.n == 2000
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_scipys_bootstrap_agrees() -> None:
    from scipy.stats import bootstrap

    rng = np.random.default_rng(1)
    top, bottom = rng.exponential(2, 150), rng.integers(1, 30, 150)
    ours = intervals({"r": ratio_score(top, bottom)}, resamples=4000)["r"]
    theirs = bootstrap(
        (top, bottom), lambda a, b: a.sum() / b.sum(), paired=True, vectorized=False, method="percentile",
        n_resamples=4000, rng=np.random.default_rng(2),
    ).confidence_interval  # fmt: skip
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.06 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.06 * width)


def test_intervals_cover_the_truth() -> None:
    """400 data sets of 80 skewed examples each; the standard error of the coverage is about 1.1 points."""
    rng = np.random.default_rng(3)
    hits = 0
    for trial in range(400):
        numerators, lengths = rng.gamma(2, 1, 80), rng.integers(1, 20, 80)
        found = intervals({"r": ratio_score(numerators * lengths, lengths)}, resamples=300, seed=trial)["r"]
        hits += found.low <= 2.0 <= found.high
    assert 0.91 <= hits / 400 <= 0.98


def test_paired_differences_cover_the_truth_and_are_narrower() -> None:
    """Two models that share the examples' difficulty; the true difference is 0.3."""
    rng = np.random.default_rng(4)
    hits, widths, unpaired = 0, [], []
    for trial in range(400):
        shared = rng.normal(0, 3, 60)
        first = mean_score(shared + rng.normal(0, 1, 60))
        second = mean_score(shared + rng.normal(0.3, 1, 60))
        found = difference({"x": first}, {"x": second}, resamples=300, seed=trial)["x"]
        assert found.value == pytest.approx(second.value - first.value)
        hits += found.low <= 0.3 <= found.high
        if trial < 20:
            alone = intervals({"a": first, "b": second}, resamples=300)
            widths.append(found.high - found.low)
            unpaired.append(math.hypot(*(alone[name].high - alone[name].low for name in "ab")))
    assert 0.91 <= hits / 400 <= 0.98
    assert np.mean(widths) < 0.5 * np.mean(unpaired)


def test_shares_take_wilsons_interval() -> None:
    found = intervals({"none": mean_score([0.0] * 100, share=True), "some": mean_score([1.0, 0.0] * 50, share=True)})
    assert found["none"].low == 0 and found["none"].high == pytest.approx(0.0370, abs=1e-4)
    assert (found["some"].low, found["some"].high) == pytest.approx((0.4038, 0.5962), abs=1e-4)


def test_a_shares_interval_covers() -> None:
    rng = np.random.default_rng(5)
    shares = rng.binomial(40, 0.1, 2000) / 40
    hits = 0
    for share in shares:
        found = intervals({"s": mean_score(np.arange(40) < round(share * 40), share=True)})["s"]
        hits += found.low <= 0.1 <= found.high
    assert 0.92 <= hits / 2000 <= 0.99


def test_corpus_bleu_resamples_are_bleu_of_the_resampled_corpus() -> None:
    """The same draws, scored by sacreBLEU on the texts themselves."""
    import sacrebleu

    rng = np.random.default_rng(6)
    words = np.array(["a", "the", "cat", "dog", "sat", "ran", "on", "mat", "home", "now"])
    truth = [" ".join(rng.choice(words, 9)) for _ in range(40)]
    texts = [" ".join(w if rng.random() < 0.8 else "x" for w in line.split()) for line in truth]
    found = intervals({"bleu": bleu_score(texts, truth), "chrf": chrf_score(texts, truth)}, resamples=100, seed=7)
    picks = np.random.default_rng(7).integers(40, size=(100, 40))
    slow = [sacrebleu.corpus_bleu([texts[i] for i in p], [[truth[i] for i in p]]).score for p in picks]
    assert (found["bleu"].low, found["bleu"].high) == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])))


def test_resamples_add_up_counts_and_read_no_text_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from sacrebleu.metrics import BLEU, CHRF

    truth = [f"the {i} cats sat on mat {i % 7} today" for i in range(20)]
    scores = {"bleu": bleu_score(truth, truth), "chrf": chrf_score(truth, truth)}
    for metric in (BLEU, CHRF):
        monkeypatch.setattr(metric, "_preprocess_segment", None)
        monkeypatch.setattr(metric, "_compute_segment_statistics", None)
    with pytest.raises(TypeError):
        bleu_score(truth, truth)
    assert intervals(scores, resamples=1000)["bleu"].low == pytest.approx(100)


def test_same_seed_same_interval_and_bad_settings() -> None:
    score = {"x": mean_score(np.arange(50.0))}
    assert intervals(score, resamples=50) == intervals(score, resamples=50) != intervals(score, resamples=50, seed=1)
    assert difference(score, score)["x"].high == 0
    with pytest.raises(ValueError, match="resamples must be at least 1; got 0"):
        intervals(score, resamples=0)
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        intervals(score, level=95)
    with pytest.raises(ValueError, match="no examples to resample"):
        intervals({"x": mean_score([])})
    with pytest.raises(ValueError, match=r"different numbers of examples \(\[2, 50\]\)"):
        difference(score, {"x": mean_score([1.0, 2.0])})
