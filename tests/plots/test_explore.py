"""The widgets: what they offer, and that the picture and its number follow them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("ipywidgets", reason="explore needs the extra kvar[notebooks]")

from kvar.analysis.exact import TokenMDP
from kvar.gradients import gradient_moments
from kvar.gradients.frames import gradient_frame, prompt_frame, trajectory_frame
from kvar.intervals import number as printed
from kvar.plots.explore import Explorer, explore
from kvar.records import RunWriter, load
from kvar.returns import Immediate, KStep, returns
from tests.plots.statistics_frames import row, study

PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    decoder = study().assign(group="decoder")
    decoder["value"] = decoder["value"] * 2
    return pd.concat([study(), decoder], ignore_index=True)


@pytest.fixture(scope="module")
def explorer(frame: pd.DataFrame) -> Explorer:
    return explore(frame)


def test_offers_what_was_measured(explorer: Explorer) -> None:
    assert explorer.student.options == ("small", "medium", "large")
    assert explorer.step.options == (0, 100, 200) and explorer.step.value == 200
    assert explorer.group.options == ("all", "decoder")
    assert [label for label, _ in explorer.k.options] == ["1", "2", "4", "8", "∞"]
    assert explorer.kernels.value == ("K=1", "K=2", "K=4", "K=8", "immediate")


@pytest.mark.parametrize(
    ("widget", "value"),
    [
        ("k", "K=4"),
        ("step", 100),
        ("student", "large"),
        ("group", "decoder"),
        ("kernels", ("K=1", "K=8")),
        ("statistic", "trace_ratio"),
    ],
)
def test_every_widget_draws_anew(explorer: Explorer, widget: str, value: object) -> None:
    before = explorer.picture.value
    getattr(explorer, widget).value = value
    assert explorer.picture.value[:4] == PNG and explorer.picture.value != before


def test_reads_out_the_number_of_the_chosen_k(frame: pd.DataFrame) -> None:
    explorer = explore(frame, statistic="trace")
    explorer.student.value, explorer.step.value, explorer.k.value = "medium", 100, "K=2"
    where = (frame[["student", "step", "kernel", "statistic", "group"]] == ["medium", 100, "K=2", "trace", "all"]).all(
        axis=1
    )
    (number,) = frame[where]["value"]
    assert f"trace of K=2, medium, step 100: <b>{printed(number)} (" in explorer.caption.value


def test_choices_follow_the_student_and_names_are_escaped() -> None:
    rows = [
        row("<b>a", "K=1", "trace", 1, 0.5, 2, step=0),
        row("<b>a", "K=1", "trace", 1, 0.5, 2, step=7),
        row("b", "geometric(0.9)", "trace", 1, float("nan"), float("nan"), step=3, parameters=9),
    ]
    explorer = Explorer(pd.DataFrame(rows), "trace")
    explorer.student.value = "<b>a"
    assert explorer.step.options == (0, 7) and explorer.chosen == "K=1"
    assert "&lt;b&gt;a, step" in explorer.caption.value
    explorer.student.value = "b"
    assert explorer.step.options == (3,) and explorer.chosen is None and explorer.kernels.value == ("geometric(0.9)",)
    assert "not measured" in explorer.caption.value and explorer.picture.value[:4] == PNG


def test_shows_a_still_picture_where_no_widgets_run(explorer: Explorer) -> None:
    bundle = explorer._repr_mimebundle_()
    assert {"image/png", "application/vnd.jupyter.widget-view+json"} <= set(bundle)
    assert bundle["image/png"].startswith("iVBOR")


def test_runs_are_read_and_named(tmp_path: Path) -> None:
    mdp, kernels = TokenMDP(vocabulary=3, horizon=3, seed=0, prompts=4), [KStep(1), Immediate()]
    with RunWriter(tmp_path / "run", {"student": "table", "parameters": 10}) as writer:
        for step in (0, 5):
            rollouts, values = mdp.sample(24, seed=step)
            weights = returns(values, rollouts.mask, kernels)
            moments = gradient_moments(mdp.student, rollouts, weights, [k.name for k in kernels])
            at = {"probe": "probe", "step": step}
            writer.append("trajectories", trajectory_frame(rollouts, values, **at))
            writer.append("gradients", gradient_frame(moments, **at))
            writer.append("prompt_gradients", prompt_frame(moments, **at))
    run = load(tmp_path / "run")
    assert explore(run, statistic="trace").student.options == ("table",)
    assert explore(tmp_path / "run", statistic="trace").student.options == ("table",)
    assert explore({"mine": run}, statistic="trace").step.options == (0, 5)


def test_bad_input(frame: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="no values of statistic 'beauty'; there are trace"):
        explore(frame, statistic="beauty")
    with pytest.raises(ValueError, match="no run to explore"):
        explore({})
    with pytest.raises(ValueError, match="lacks the column"):
        explore(frame.drop(columns="n"))
