"""``kvar choose-k``: tables, verdicts, seeds combined, and what is refused."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest

from kvar.analysis import best_k, plan
from kvar.analysis.frames.recorded import moments_at
from kvar.commands.main import main
from kvar.intervals.probability_of_best import probability_over_seeds
from kvar.records import RunWriter, load
from kvar.report.choose_k import choose_k
from kvar.report.words.choice import told_by, untold, verdict_of
from kvar.results.choices import Choice, choices
from tests.report.small_runs import KERNELS, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "a")


def chances(efficiency, units=64, needed=None, unit="prompts"):
    import pandas as pd

    names = [f"K={2**i}" for i in range(len(efficiency))]
    table = pd.DataFrame({"kernel": names, "efficiency_best": efficiency, "mse_best": efficiency})
    return Choice(16, 1, table, units, unit, {"efficiency": needed, "mse": needed})


def test_every_design_has_the_table_of_best_k(run):
    moments = moments_at(run, "probe", 0)
    found = choices([run], [4, 64], [1, 4])
    assert [(c.prompts, c.rollouts) for c in found] == [(4, 1), (4, 4), (64, 1), (64, 4)]
    for choice in found:
        expected = best_k(moments, choice.prompts, choice.rollouts, reference="K=1", unit="prompt")
        for name in ("efficiency", "efficiency_low", "efficiency_best", "mse", "mse_high", "mse_best"):
            np.testing.assert_allclose(choice.table[name], expected[name], err_msg=name)
        assert (choice.units, choice.unit) == (60, "prompts")
        assert choice.needed["mse"] == expected.attrs["units_mse"]


def test_the_text_holds_a_table_and_two_verdicts_a_design(run):
    text = choose_k(run, [4, 64], [1, 4])
    assert text.count("best by efficiency (Adam, tuned rates): ") == text.count("best by squared error") == 4
    assert "steps of 4 prompts x 1 rollout\n" in text and "steps of 64 prompts x 4 rollouts\n" in text
    lines = text.splitlines()
    at = lines.index("steps of 64 prompts x 1 rollout")
    assert [line.split()[0] for line in lines[at + 2 : at + 6]] == list(KERNELS)
    rows = [re.findall(r"\d\.\d\d(?=$|  )", line)[-1] for line in lines[at + 2 : at + 6]]
    assert abs(sum(map(float, rows)) - 1) < 0.021
    assert "nan" not in text


def test_the_verdict_says_whether_the_data_tell_and_how_many_more_would():
    assert verdict_of(chances([0.03, 0.97]), "mse") == "K=2, with probability 0.97"
    open_ = verdict_of(chances([0.3, 0.6, 0.06, 0.04], needed=320.0), "mse")
    assert open_ == (
        "not resolved: K=2 (0.60), K=1 (0.30) and K=4 (0.06) cannot be told apart; about 320 prompts (5 times the 64 "
        "there are) would tell, were the difference seen the true one"
    )
    assert "K=1 (0.93) and K=2 (0.04)" in verdict_of(chances([0.93, 0.04, 0.03], needed=70.0), "mse")
    assert "so alike that 100 times the 64 prompts" in verdict_of(chances([0.5, 0.4, 0.1], needed=1e7), "mse")
    assert "a few more prompts than 64 would tell" in verdict_of(chances([0.9, 0.1], needed=40.0), "mse")
    assert verdict_of(chances([0.5, 0.5], needed=2.0), "mse").endswith("K=1 (0.50) and K=2 (0.50) cannot be told apart")
    unknown = verdict_of(chances([np.nan, np.nan]), "efficiency")
    assert unknown.startswith(
        "not resolved: the true gradient's direction cannot be distinguished from noise; measure more"
    )


def test_a_target_that_is_not_told_from_zero_is_said_in_one_line(tmp_path):
    """Six prompts: by seed, |g*|^2 falls below 0 without one of them, or is below 0 itself."""
    runs = [write_run(tmp_path / str(seed), prompts=6, rollouts=2, seed=seed) for seed in (0, 2)]
    (first,), (second,), (both,) = (choices(x, [16], [1]) for x in ([runs[0]], [runs[1]], runs))
    needed = plan(moments_at(runs[0], "probe", 0), "K=1", unit="prompt").attrs["target_units"]
    assert np.isfinite(first.table["efficiency"][0]) and np.isnan(second.table["efficiency"][0])
    assert (first.target_units, second.target_units, both.target_units) == (needed, np.inf, np.inf)
    begins = "no efficiency and no best kernel is told: |g*|^2 of the gradient of J, estimated by K=1, is not told from"
    enough = "in four cases of five, were these numbers the true ones"
    for given, rest in (
        (runs[0], f"zero with 6 prompts; about {needed:.0f} prompts would, {enough}"),
        (runs[1], "zero with 6 prompts; these prompts do not tell how many would"),
        (runs, "zero with each of the 2 seeds; these prompts do not tell how many would"),
    ):
        lines = choose_k(given, [16], [1]).splitlines()
        assert lines[-1] == f"{begins} {rest}"
        assert lines[-6] == "kernel     squared error" and not any(cell in lines[-6:] for cell in ("efficiency", " - "))


def test_a_target_that_is_told_has_no_such_line(run):
    (choice,) = choices([run], [16], [1])
    assert np.isnan(choice.target_units) and untold(choice) is None
    assert told_by(50.0, 60) == "about 61 prompts would, in four cases of five, were these numbers the true ones"


def test_more_prompts_resolve_what_few_do_not(tmp_path):
    few, many = (write_run(tmp_path / str(m), prompts=m) for m in (60, 600))
    needed, had = ([choices([r], [64], [1])[0].needed["mse"], r] for r in (few, many))
    assert choices([few], [64], [1])[0].table["mse_best"].max() < choices([many], [64], [1])[0].table["mse_best"].max()
    assert needed[0] > 60 and had[0] > 0


def test_seeds_are_combined_with_the_spread_among_them(tmp_path):
    runs = [write_run(tmp_path / f"s{seed}", prompts=30, seed=seed) for seed in range(4)]
    single = [choices([r], [64], [4])[0].table for r in runs]
    (found,) = choices(runs, [64], [4])
    values = np.stack([t["efficiency"] for t in single])
    np.testing.assert_allclose(found.table["efficiency"], values.mean(axis=0))
    half = 3.182446 * values.std(axis=0, ddof=1) / 2  # t, three degrees of freedom
    np.testing.assert_allclose(found.table["efficiency_high"] - found.table["efficiency"], half, rtol=1e-6)
    np.testing.assert_allclose(found.table["efficiency_best"], probability_over_seeds(values, smallest=False))
    assert (found.units, found.unit) == (4, "seeds")
    assert "over 4 seeds" in choose_k(runs, [64], [4])


@pytest.mark.parametrize(
    ("field", "value"), [("teacher", "other"), ("kernel", "K=4"), ("parameters", 99), ("max_new_tokens", 7)]
)
def test_runs_of_another_kind_are_refused_with_the_field(tmp_path, run, field, value):
    other = write_run(tmp_path / "other", seed=5, **{field: value})
    with pytest.raises(ValueError, match=rf"differ in {field} \(.*{value}\)"):
        choose_k([run, other], [64], [1])


def test_runs_that_measured_other_kernels_or_share_a_seed_are_refused(tmp_path, run):
    other = write_run(tmp_path / "kernels", kernels=("K=1", "K=8"), seed=3)
    with pytest.raises(ValueError, match=r"differ in the kernels measured.*K=1, K=2, K=4, immediate; K=1, K=8"):
        choose_k([run, other], [64], [1])
    with pytest.raises(ValueError, match="seed 0 occurs twice"):
        choose_k([run, write_run(tmp_path / "twin")], [64], [1])


def test_one_rollout_a_prompt_tells_only_steps_of_one_rollout(tmp_path):
    run = write_run(tmp_path / "one", rollouts=1, prompts=120)
    text = choose_k(run, [16], [1, 4])
    assert "not told: the probe has one rollout a prompt" in text
    assert text.count("best by efficiency") == 1
    assert "over 120 prompts" in text
    with pytest.raises(ValueError, match="none of these steps can be told: the probe has one rollout a prompt"):
        choose_k(run, [16], [4])


def test_one_prompt_tells_only_steps_of_that_prompt(tmp_path):
    run = write_run(tmp_path / "one", prompts=1, rollouts=80)
    with pytest.raises(ValueError, match=r"the probe has one prompt.*--prompts 1"):
        choose_k(run, [16, 64], [1])
    found = choices([run], [1], [4])[0]
    expected = best_k(moments_at(run, "probe", 0), 4, unit="trajectory")
    np.testing.assert_allclose(found.table["mse"], expected["mse"])
    assert found.unit == "responses"


def test_one_response_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least two trajectories; these moments hold 1"):
        choose_k(write_run(tmp_path / "one", prompts=1, rollouts=1), [1], [1])


def test_equal_responses_give_no_warning_and_are_named(tmp_path):
    run = write_run(tmp_path / "equal", equal=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = choose_k(run, [16], [1, 4])
    assert "nan" not in text
    assert "the probe saw no noise" in text


def test_a_run_without_probes_and_bad_options_are_refused(tmp_path, run):
    with RunWriter(tmp_path / "bare", {"seed": 0}):
        pass
    with pytest.raises(ValueError, match="holds no gradient probe"):
        choose_k(load(tmp_path / "bare"), [16], [1])
    for options, match in (
        ({"group": "decoder"}, "no parameter group 'decoder'; measured groups: all"),
        ({"reference": "K=3"}, "reference 'K=3' is none of the estimators"),
        ({"step": 7}, r"no probe at step 7; choose of \[0\]"),
    ):
        with pytest.raises(ValueError, match=match):
            choose_k(run, [16], [1], **options)
    with pytest.raises(ValueError, match="prompts must be at least 1; got 0"):
        choose_k(run, [0], [1])


def test_the_last_probes_of_seeds_must_be_of_one_step(tmp_path):
    runs = [write_run(tmp_path / str(i), seed=i, steps=(0,) if i else (0, 10), prompts=20) for i in range(2)]
    with pytest.raises(ValueError, match="the last probes are of different steps"):
        choose_k(runs, [16], [1])
    assert "over 2 seeds" in choose_k(runs, [16], [1], step=0)


def test_the_command_prints_and_draws(tmp_path, run, capsys):
    words = ["choose-k", str(run.path), "--prompts", "16", "64", "--rollouts", "1", "4"]
    assert main([*words, "--plot", str(tmp_path / "which.png")]) == 0
    text = capsys.readouterr().out
    assert text.count("steps of ") == 4
    assert (tmp_path / "which.png").stat().st_size > 10_000
    assert (tmp_path / "which.svg").exists()
    assert main([*words, "--group", "nix"]) == 2
    assert "no parameter group 'nix'" in capsys.readouterr().err
