"""A pilot, a plan, and a fresh measurement of other prompts."""

from __future__ import annotations

import math
import warnings

import pandas as pd
import pytest

import kvar
from kvar.front.two_draws import two_draws
from kvar.hooks import Measurement
from kvar.tasks import ArithmeticTask


class Planned(Measurement):
    """A measurement whose plan is known."""

    needed = (150.0, 900.0, math.inf)

    def plan(self, target: str = "data", batch: float = 64, **options: object) -> pd.DataFrame:
        frame = pd.DataFrame({"estimator": ["near", "far", "lost"], "units_needed": self.needed})
        frame.attrs["target_units"] = self.needed[0]
        return frame


def drawing(asked: list):
    """A function that notes which prompts it is to measure."""

    def measured(rows: slice, draw: int) -> Measurement:
        asked.append((rows, draw))
        return Planned(draw, None, None, None, 0.0, {"prompts": 2000})  # type: ignore[arg-type]

    return measured


@pytest.mark.parametrize(
    ("prompts", "most", "size", "beyond"),
    [
        (2000, None, 900, ["lost"]),  # no estimator that is out of reach uses the budget up
        (2000, 500, 150, ["far", "lost"]),
        (500, None, 150, ["far", "lost"]),
    ],
)
def test_as_many_other_prompts_are_measured_as_the_pilot_says(prompts, most, size, beyond) -> None:
    asked: list = []
    m = two_draws(drawing(asked), prompts, "data", pilot=100, max_prompts=most)
    assert asked == [(slice(0, 100), 0), (slice(100, 100 + size), 1)]
    assert m.config["pilot"] == {"prompts": 100, "target": "data", "planned": size, "out_of_reach": beyond}
    assert (m.step, m.config["prompts"]) == (0, size)


def test_a_target_out_of_reach_is_warned_of_and_the_budget_measured() -> None:
    asked: list = []
    with pytest.warns(UserWarning, match=r"pilot of 100 prompts says that 120 prompts tell no .* takes about 150\)"):
        two_draws(drawing(asked), 2000, "data", pilot=100, max_prompts=120)
    assert asked[1] == (slice(100, 220), 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pilot": 2}, "pilot must be at least 3 prompts; got 2"),
        ({"pilot": 4, "max_prompts": 3}, "max_prompts must be at least the pilot's 4 prompts; got 3"),
        ({"pilot": 3.5}, "pilot must be a whole number of prompts; got 3.5"),
        ({"pilot": 3, "max_prompts": "4"}, "max_prompts must be a whole number of prompts; got '4'"),
        ({"pilot": 6}, "a pilot of 6 prompts and as many others or more; there are 8 prompts"),
        ({"pilot": 3, "resolve": "J_kl"}, "reference 'J_kl' is none of the estimators"),
    ],
)
def test_what_cannot_be_planned_is_refused(change: dict, message: str) -> None:
    prompts = [e.prompt for e in ArithmeticTask().examples("validation", 8)]
    given = {"kernels": "K=1, K=4", "resolve": "J", "max_new_tokens": 2, "rollouts_per_prompt": 2, **change}
    with pytest.raises(ValueError, match=message):
        kvar.measure("arithmetic-50k", "arithmetic", prompts, **given)


def test_the_second_draw_is_of_other_prompts_with_their_references() -> None:
    examples = ArithmeticTask().examples("validation", 9)
    prompts, targets = [e.prompt for e in examples], [e.target for e in examples]
    options = {"kernels": "K=1", "max_new_tokens": 3, "rollouts_per_prompt": 2}
    planned = {"references": targets, "resolve": "data", "pilot": 3, "max_prompts": 3, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so small a pilot may see no direction
        m = kvar.measure("arithmetic-50k", "arithmetic", prompts, **planned)
    alone = kvar.measure("arithmetic-50k", "arithmetic", prompts[3:6], references=targets[3:6], **options)
    size = len(m.moments.prompts)
    assert size == 3 and m.config["pilot"]["planned"] == 3
    data = slice(size * 2, None)  # the references, which no seed touches
    assert m.moments.sq_norm[-1, data].tolist() == pytest.approx(alone.moments.sq_norm[-1, data].tolist(), rel=1e-4)
