"""The verdict: each sentence, in each of its branches."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from kvar.intervals import Interval
from kvar.report import verdict
from kvar.report.words.sentences import (
    best_sentence,
    beyond_scale,
    bias_sentence,
    fall_sentence,
    lead_sentences,
    noise_sentence,
    scale_sentence,
    size_sentence,
)
from kvar.results.by_kernel import best_of_students, cells
from tests.plots.statistics_frames import row, study

ONE = Interval(1.0, 1.0, 1.0)
BARE = Interval(0.5)


def ratio(**cells):
    return {1.0: ONE} | {float(name.lstrip("k")): cell for name, cell in cells.items()}


LOW, OPEN, HIGH = Interval(0.3, 0.2, 0.4), Interval(0.9, 0.7, 1.1), Interval(1.5, 1.2, 1.8)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (ratio(), "is not known"),
        (ratio(k2=OPEN, k4=OPEN), "No change of the variance with K is resolved: at K = 4 it is 0.9 (0.7 to 1.1)"),
        (ratio(k2=BARE), "is 0.5 of that at K = 1, with no interval."),
        (ratio(k2=OPEN), "an interval that includes 1."),
        (ratio(k2=LOW, k4=Interval(0.1, 0.05, 0.15)), "Variance falls with K: at K = 4 it is 0.1 (0.05 to 0.15)"),
        (ratio(k2=LOW, kinf=Interval(0.1, 0.05, 0.15)), "Variance falls with K: at K = 2"),
        (
            ratio(k2=Interval(0.1, 0.05, 0.15), k4=LOW),
            "does not fall in step with K: it is 0.1 (0.05 to 0.15) of that at K = 2",
        ),
        (ratio(k2=LOW, k4=OPEN), "Variance falls at K = 2 (to 0.3 (0.2 to 0.4) of that at K = 1); at K = 4 no change"),
        (ratio(k2=HIGH), "Variance rises at K = 2 (to 1.5 (1.2 to 1.8) of that at K = 1)."),
        (
            ratio(k2=LOW, k4=LOW, k8=HIGH),
            "falls at K = 2 and 4 (to 0.3 (0.2 to 0.4) of that at K = 1 at K = 4) and rises",
        ),
    ],
)
def test_fall(row, expected):
    assert expected in fall_sentence(row)


def test_falls_is_claimed_only_when_the_interval_excludes_one():
    assert "falls" in fall_sentence(ratio(k2=Interval(0.9, 0.8, 0.999)))
    assert "falls" not in fall_sentence(ratio(k2=Interval(0.9, 0.8, 1.0)))


SIGNAL = {1.0: Interval(1.0, 0.8, 1.2), 8.0: Interval(0.1, 0.05, 0.15)}
RELATIVE = {1.0: Interval(100.0, 90.0, 110.0), 8.0: Interval(30.0, 20.0, 40.0)}
FALL = Interval(0.01, 0.008, 0.012)


@pytest.mark.parametrize(
    ("signal", "relative", "expected"),
    [
        ({1.0: SIGNAL[1.0]}, RELATIVE, "the signal |E g|^2 was not measured at both K"),
        (SIGNAL | {8.0: Interval(0.1, -0.1, 0.3)}, RELATIVE, "is not resolved from zero at K = 8; more trajectories"),
        (
            {1.0: Interval(-0.1, -1, 1), 8.0: Interval(0.1, -0.1, 0.3)},
            RELATIVE,
            "not resolved from zero at K = 1 and 8",
        ),
        (SIGNAL, RELATIVE, "About 50 % of that, in logarithms, is mere scale (|E g|^2 is 0.1 of that at K = 1), yet"),
        (SIGNAL, RELATIVE, "falls too, from 100 (90 to 110) to 30 (20 to 40)."),
        (SIGNAL, RELATIVE | {8.0: Interval(200.0, 150.0, 250.0)}, "rises, from 100 (90 to 110) to 200 (150 to 250)."),
        (SIGNAL, RELATIVE | {8.0: Interval(80.0, 50.0, 120.0)}, "no gain beyond scale is resolved"),
        (SIGNAL, RELATIVE | {1.0: Interval(100.0)}, "no gain beyond scale is resolved"),
        (SIGNAL, {}, "the relative variance was not measured."),
        (SIGNAL | {8.0: Interval(2.0, 1.5, 2.5)}, RELATIVE, "None of that is mere scale"),
        (SIGNAL | {8.0: Interval(0.001, 0.0005, 0.0015)}, RELATIVE, "All of that is mere scale"),
    ],
)
def test_scale(signal, relative, expected):
    assert expected in scale_sentence(8.0, FALL, signal, relative)


def test_beyond_scale_needs_resolved_signals_and_separate_intervals():
    assert beyond_scale(8.0, SIGNAL, RELATIVE)
    assert not beyond_scale(8.0, SIGNAL | {8.0: Interval(0.1, -0.1, 0.3)}, RELATIVE)
    assert not beyond_scale(8.0, SIGNAL, RELATIVE | {8.0: Interval(80.0, 50.0, 120.0)})
    assert not beyond_scale(8.0, SIGNAL, {})


def test_bias():
    biased = {8.0: Interval(0.5, 0.4, 0.6)}
    said = bias_sentence(8.0, biased, SIGNAL)
    assert "K = 8" in said and "0.5 (0.4 to 0.6)" in said and "50 %" in said
    said = bias_sentence(8.0, biased, {})
    assert "0.5 (0.4 to 0.6)" in said and "%" not in said
    assert "is not resolved from zero" in bias_sentence(8.0, {8.0: Interval(-0.1, -0.3, 0.1)}, SIGNAL)
    assert "is not resolved from zero" in bias_sentence(8.0, {8.0: Interval(0.1)}, SIGNAL)
    assert "not measured" in bias_sentence(8.0, {}, SIGNAL)


ETA = Interval(0.2, 0.15, 0.25)


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (None, "Which estimator points best is not known: the efficiency was not measured."),
        ({}, "Which estimator points best is not resolved: the true gradient's direction cannot be distinguished from"),
        ({"K=4": 0.95}, "K=4 points best, with probability 0.95: its efficiency is 0.2 (0.15 to 0.25), against 0.1 of"),
        ({"K=1": 0.99}, "K=1 points best, with probability 0.99: its efficiency is 0.1."),
        ({"K=4": 0.6, "K=1": 0.4}, "points best is not resolved: K=4 (0.60) and K=1 (0.40) cannot be told apart."),
    ],
)  # fmt: skip
def test_best(left, expected):
    assert expected in best_sentence(left, {"K=1": Interval(0.1), "K=4": ETA})


def test_the_lead_counts_what_is_resolved():
    snr = {"K=1": Interval(0.1, 0.0, 0.2), "K=8": Interval(0.5, 0.3, 0.7)}
    both = {"small": {"K=4": 0.5, "K=8": 0.5}, "large": {"K=8": 0.99}}
    assert lead_sentences(both, {"small": snr, "large": {}}) == [
        "Which estimator points best is resolved in 1 of 2 students: K=8 in large.",
        "A larger SNR than that of K=1 is resolved in 1 of 2 students: K=8 in small.",
    ]
    many = {name: {"K=4": 1.0} for name in "abcde"}
    assert lead_sentences(many, {})[0].endswith("resolved in 5 of 5 students: K=4 in 5.")


def test_noise_is_told_apart_by_intervals():
    apart = {"K=1": Interval(0.1, 0.0, 0.2), "K=4": Interval(0.2, 0.1, 0.4), "K=8": Interval(0.5, 0.3, 0.7)}
    said = noise_sentence(apart)
    assert said.startswith(
        "K=8 has the most signal for its noise (largest SNR): the SNR of a step is 0.5 (0.3 to 0.7) against "
    )
    assert said.endswith("0.1 (0 to 0.2) of K=1; its interval lies above that of K=1.")
    assert noise_sentence({**apart, "K=4": Interval(0.1, 0.0, 0.2)}).endswith("lies above those of all others.")
    assert "not resolved" in noise_sentence({"K=1": OPEN, "K=8": OPEN}) and "not resolved" in noise_sentence({})


SIZES = {"a": 10, "b": 20, "c": 30}


@pytest.mark.parametrize(
    ("at", "sizes", "expected"),
    [
        ({"a": LOW}, SIZES, "variance ratios of one size only"),
        ({"a": LOW, "b": LOW}, {"a": 10, "b": 10}, "variance ratios of one size only"),
        ({"a": BARE, "b": LOW}, SIZES, "no K has a ratio and interval for every student"),
        (
            {"a": LOW, "b": OPEN, "c": Interval(0.1, 0.05, 0.15)},
            SIZES,
            "is lower for the largest student (0.3 (0.2 to 0.4) for A",
        ),
        ({"a": LOW, "c": OPEN}, SIZES, "is higher for the largest student"),
        ({"a": LOW, "b": OPEN, "c": LOW}, SIZES, "differs between students, but not from the smallest to the largest"),
        ({"a": LOW, "c": Interval(0.35, 0.25, 0.45)}, SIZES, "No dependence on student size is resolved"),
    ],
)
def test_size(at, sizes, expected):
    said = size_sentence({n: ratio(k4=cell) for n, cell in at.items()}, sizes, {n: n.upper() for n in sizes})
    assert expected in said


def test_the_whole_verdict_names_n_and_every_student():
    frame = study()
    said = verdict(frame)
    assert "1 of 3 students: K=8 in medium (90k)" in said[0]
    assert all(fact in said[2] for fact in ("n = 256", "step 200", "95 % intervals"))
    assert re.findall(r"\d+ students|in \d", said[3]) == ["3 students", "in 3", "in 3", "in 3"]
    starts = [s.split(":")[0] for s in said if "(22k):" in s or "(90k):" in s or "(500k):" in s]
    assert starts == ["small (22k)", "medium (90k)", "large (500k)"]
    assert said[-1].startswith("No dependence on student size")


def test_noise_supports_no_claim():
    rows = [row("small", "K=1", "trace_ratio", 1.0, 1.0, 1.0), row("small", "K=2", "trace_ratio", 0.8, 0.5, 1.2, n=32)]
    rows.append(row("small", "K=2", "bias_sq", 0.1, -0.1, 0.3))
    said = " ".join(verdict(pd.DataFrame(rows)))
    assert "n = 32 to 256" in said
    for word in ("falls with", "rises", "price", "depends on student size:", "mere scale"):
        assert word not in said


def test_the_estimators_that_may_be_best_are_the_likeliest_that_hold_the_best():
    left = best_of_students(study())
    assert {name: list(estimators) for name, estimators in left.items()} == {
        "small": ["K=4", "K=8", "K=2", "K=1"],
        "medium": ["K=8"],
        "large": ["K=8", "immediate", "K=4"],
    }
    assert cells(study(), "nothing") == {}


def test_a_frame_without_any_known_statistic_is_refused():
    with pytest.raises(ValueError, match="no 'trace'"):
        verdict(pd.DataFrame([row("small", "K=1", "other", 1.0, 1.0, 1.0)]))
    with pytest.raises(ValueError, match="is empty"):
        verdict(study().iloc[:0])
