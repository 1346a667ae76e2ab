"""The study in figures/estimators: its config plans, and its reading of points against hand-worked values."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from figures.estimators import cells, claims, measure, pictures
from kvar.estimators import parse_estimators
from kvar.intervals import Interval
from kvar.study.grid.run_grid import cells_of, read_study


def test_the_studys_cells_and_estimators_are_what_the_scripts_read() -> None:
    planned = cells_of(read_study("estimators"))
    assert len(planned) == 2 * 2 * 3 * 7
    assert {cell.name.split("/")[2] for cell in planned} == {"start", *cells.METHODS} >= set(measure.MEASURED)
    first, after = (
        {e.name for e in parse_estimators(" ".join(names.split()))} for names in (measure.AT_START, measure.AFTERWARDS)
    )
    assert after <= first
    followed = {own for _, own in cells.METHODS.values()}
    assert followed <= {*after, "data"}


def test_methods_are_compared_where_all_have_one_j() -> None:
    """LLMR gains 4 in J at two nats, K = 8 gains 2 at half a nat: at J = -8 LLMR has drifted by one nat."""
    start = {"J": -10.0, "nll": 3.0, "length": 12.0, "score": 30.0, "J_kl": -20.0}
    rows = [{**start, "method": "start", "step": 300}]
    rows += [{**start, "method": "llmr", "step": s, "J": -10 + 0.02 * s, "nll": 3 + 0.01 * s} for s in (50, 100, 200)]
    rows += [{**start, "method": "K=8", "step": s, "J": -10 + 0.01 * s, "nll": 3 + 0.0025 * s} for s in (50, 100, 200)]
    points = pd.DataFrame(rows).assign(task="t", student="s", seed=0)
    equal = cells.at_equal_j(points, ["llmr", "K=8"]).set_index("method")
    assert equal["at"].tolist() == [-8.0, -8.0]
    np.testing.assert_allclose(equal["nll"][["llmr", "K=8"]], [4.0, 3.5])
    np.testing.assert_allclose(equal["step"][["llmr", "K=8"]], [100.0, 200.0])


def test_intervals_of_reciprocals_and_sides() -> None:
    turned = cells.reciprocal(Interval(0.5, -0.1, 2.0))
    assert (turned.value, turned.low, turned.high) == (2.0, 0.5, np.inf)
    assert claims.resolved(Interval(1.0, 0.5, 1.5)) == "above"
    assert claims.resolved(Interval(-1.0, -1.5, -0.5)) == "below"
    few, three = cells.over([1.0, np.nan, 3.0]), cells.over([1.0, 2.0, np.nan, 3.0])
    assert (few.value, few.n, few.known) == (2.0, 2, False) and (three.n, three.known) == (3, True)


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("K=4", "K-step returns, sampled"),
        ("kl immediate exact", "sums over the vocabulary"),
        ("kl immediate", "other sampled"),
        ("data", "the references or the score"),
    ],
)
def test_colours_of_estimators(name: str, group: str) -> None:
    assert pictures.group_of(name) == group
