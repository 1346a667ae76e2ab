"""The study in figures/acting: its config plans, and its reading of runs against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from figures.acting import claims, claims_knew, cost, knew, measure
from figures.acting.cells import FIXED, METHODS, Results
from figures.acting.compare import Clock, compare
from kvar.estimators import parse_estimators
from kvar.study.grid.run_grid import cells_of, read_study

NONE = pd.DataFrame()
SEEDS = (1, 2, 3)


def rows(
    method: str, curve: dict[int, float], plus: tuple[float, ...] = (0.0, 0.0, 0.0), task: str = "t"
) -> list[dict[str, object]]:
    """Points of a method: a tuning seed, and seeds 1 to 3 with these added to every number but the start's."""
    rate = np.nan if method == "start" else 0.1
    return [
        {"task": task, "method": method, "rate": rate, "seed": seed, "step": step, "J": value + (step > 0) * more,
         "greedy": value + (step > 0) * more, "length": 10.0, "score": 1.0}
        for seed, more in zip((0, *SEEDS), (0.0, *plus), strict=True)
        for step, value in curve.items()
    ]  # fmt: skip


def results(*points: list[dict[str, object]], cost: dict[str, float] | None = None, pause: float = 0.0) -> Results:
    prices = [
        {"task": "t", "method": m, "what": what, "ratio": x}
        for m, ratio in (cost or {}).items()
        for what, x in (("step", ratio), ("measurement", pause))
    ]
    choices = [
        {"task": "t", "method": "auto-J", "rate": 0.1, "seed": seed, "step": step} for seed in SEEDS for step in (0, 50)
    ]
    frame = pd.DataFrame([row for part in points for row in part])
    return Results(frame, NONE, pd.DataFrame(choices), pd.DataFrame(prices))


def test_the_studys_methods_are_what_the_scripts_read() -> None:
    planned = {cell.name.split("/")[2].partition("@")[0] for cell in cells_of(read_study("acting"))}
    assert {"start", *METHODS} >= planned
    assert set(FIXED) < set(measure.OWN) < planned
    assert parse_estimators(", ".join(measure.OWN.values()))


def test_a_curve_is_read_at_a_second() -> None:
    """Steps of 2 s; 30 s of measuring before the first step and 10 s after step 50: step 100 is reached at 240 s."""
    clock = Clock(2.0, ((0, 30.0), (50, 10.0)))
    assert [clock.reached(step) for step in (0, 50, 100)] == [0.0, 130.0, 240.0]
    seconds = [0.0, 29.0, 80.0, 130.0, 140.0, 190.0, 240.0]
    values = [clock.read([0, 50, 100], [0.0, 10.0, 30.0], when) for when in seconds]
    np.testing.assert_allclose(values, [0, 0, 5, 10, 10, 20, 30])
    assert np.isnan(clock.read([0, 50, 100], [0.0, 10.0, 30.0], 241.0))
    between = Clock(1.0, ((25, 50.0),))  # measured half-way between two checkpoints: there for 50 s
    assert [between.read([0, 50], [0.0, 8.0], when) for when in (25, 75, 100)] == [4.0, 4.0, 8.0]


def test_methods_are_paired_with_the_best_of_a_group() -> None:
    """K = 8 is the best fixed K with 20 on average; auto has 25, 26, 30 against its 19, 20, 21."""
    study = results(
        rows("start", {0: 0.0}),
        rows("llmr", {50: 5.0, 100: 10.0, 150: 15.0}),
        rows("K=8", {50: 10.0, 100: 15.0, 150: 20.0}, (-1.0, 0.0, 1.0)),
        rows("auto-J", {50: 12.0, 100: 20.0, 150: 27.0}, (-2.0, -1.0, 3.0)),
        cost={"llmr": 1.0, "K=8": 1.0, "auto-J": 1.0},
        pause=25.0,
    )
    one = compare(study, "t", "J", "auto-J", FIXED, "samples")
    assert one is not None and (one.best, one.when) == ("K=8", 150)
    assert one.difference.tolist() == [6.0, 6.0, 9.0] and one.signs == "3 of 3"
    x = one.interval()
    np.testing.assert_allclose([x.value, x.high - x.value], [7.0, 4.3027 * np.sqrt(3.0) / np.sqrt(3)], rtol=1e-4)
    # auto has measured for 50 steps' time when the fixed K end at 150: it has then taken 100 steps
    late = compare(study, "t", "J", "auto-J", FIXED, "seconds")
    assert late is not None and (late.best, late.when) == ("K=8", 150.0)
    np.testing.assert_allclose(late.difference, [18 - 19, 19 - 20, 23 - 21])
    assert compare(study, "t", "J", "optimal-J", FIXED, "samples") is None
    unpriced = Results(study.points, NONE, study.choices, NONE)
    assert compare(unpriced, "t", "J", "auto-J", FIXED, "seconds") is None


@pytest.mark.parametrize(
    ("gain", "other", "verdict"), [(30.0, 30.0, "confirmed"), (30.0, 20.0, "in part"), (19.0, 19.0, "refuted")]
)
def test_the_first_claim_is_decided_over_tasks(gain: float, other: float, verdict: str) -> None:
    parts = []
    for task, end in (("t", gain), ("u", other)):
        parts += [rows("start", {0: 0.0}, task=task), rows("llmr", {150: 20.0}, (-0.1, 0.1, 0.0), task)]
        parts += [rows("immediate", {150: end}, (0.1, -0.1, 0.0), task)]
    told, lines = claims.best_fixed(results(*parts))
    assert told.startswith(verdict) and len(lines) == 2 + 4


def test_permuted_methods() -> None:
    """Of the 6 orders of three methods one has rank correlation 1; two cells alone have it once in 36."""
    x = np.array([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])
    assert knew.correlations(x, x).tolist() == pytest.approx([1.0, 1.0])
    assert knew.permutation_p([(x, x)]) == pytest.approx(1 / 6, abs=0.02)
    assert knew.permutation_p([(x[:1], x[:1]), (x[1:], x[1:])]) == pytest.approx(1 / 36, abs=0.01)
    assert knew.permutation_p([(x, -x)]) == 1.0
    # of one cell, ranks 1 2 3 against 1 3 2: 0.5 or more in 3 of 6 orders (1, 0.5, 0.5)
    y = np.array([[1.0, 3.0, 2.0]])
    assert knew.permutation_p([(x[:1], y)]) == pytest.approx(1 / 2, abs=0.02)


def test_tasks_may_have_run_other_methods() -> None:
    """Ranks agree on one task and are upside down on the other, which lacks the method c and has d; c of one seed is
    missing, so that this seed is left out."""
    index = pd.MultiIndex.from_tuples([("t", 1), ("t", 2), ("u", 1)], names=["task", "seed"])
    lists = {"a": [1, 1, 3], "b": [2, 2, 2], "c": [3, np.nan, np.nan], "d": [np.nan, np.nan, 1]}
    x = pd.DataFrame(lists, index=index, dtype=float)
    y = pd.DataFrame({"a": [1, 1, 1], "b": [2, 2, 2], "c": [3, 3, 3], "d": [np.nan, np.nan, 3]}, index=index)
    told = knew.ranked(x, y)
    assert told is not None and told.methods == "3"
    assert told.rho.round(9).to_dict() == {("t", 1): 1.0, ("u", 1): -1.0}


def test_where_a_noisy_estimator_overtakes() -> None:
    """c^2 = 1 and rv = 320 of K = 1, 1/2 and 32 of K = 8: (160 - 32) / (1/2) = 256 responses, 16 steps of 16."""
    at = {"task": "t", "method": "start", "seed": 1, "step": 0}
    values = {"K=1": (1 / 21, 320.0), "K=8": (0.5 / 3, 32.0), "K=2": (1 / 2, 16.0), "K=4": (0.1 / 101, 1600.0)}
    rows = [
        {**at, "estimator": name, "statistic": statistic, "target": target, "value": value}
        for name, pair in values.items()
        for statistic, target, value in zip(("efficiency", "relative_variance"), ("J", ""), pair, strict=True)
    ]
    study = Results(NONE, pd.DataFrame(rows), NONE, NONE)
    assert float(knew.overtaken(study, "K=8").iloc[0]) == pytest.approx(16)
    assert np.isinf(knew.overtaken(study, "K=2").iloc[0])  # as little bias, less noise
    assert knew.overtaken(study, "K=4").iloc[0] == 0.0


def test_how_long_an_estimator_is_in_use() -> None:
    at = {"task": "t", "method": "auto-J", "rate": 0.1}
    choices = pd.DataFrame(
        [
            {**at, "seed": 1, "step": 0, "estimator": "K=4", "efficiency": 0.2},
            {**at, "seed": 1, "step": 50, "estimator": "K=8", "efficiency": 0.3},
            {**at, "seed": 2, "step": 0, "estimator": "K=8", "efficiency": 0.4},
        ]
    )
    assert claims_knew.in_use(choices).to_dict() == {"K=4": 50.0, "K=8": 100.0 + 150.0}


def test_the_cost_of_a_step_is_that_of_its_round() -> None:
    """A machine twice as slow in the second round changes no ratio: 1.5 steps of LLMR; a choice takes 40."""
    rounds = [
        {("llmr", "step"): 0.1, ("auto-J", "step"): 0.15, ("auto-J", "measurement"): 4.0},
        {("auto-J", "step"): 0.3, ("llmr", "step"): 0.2},
        {("llmr", "step"): 0.1, ("auto-J", "step"): 0.16},
    ]
    told = cost.summary(rounds).set_index(["method", "what"])
    assert told["ratio"].round(9).to_dict() == {
        ("llmr", "step"): 1.0, ("auto-J", "step"): 1.5, ("auto-J", "measurement"): 40.0
    }  # fmt: skip
    assert told["seconds"].round(9).tolist() == [0.1, 0.16, 4.0]
    assert told.loc[("auto-J", "step"), ["low", "high"]].round(9).tolist() == [1.5, 1.6]
    assert told["rounds"].tolist() == [3, 3, 1]
