"""``kvar advise``: the page, its numbers against those of choose-k, and what is refused."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from kvar.analysis import efficiency, plan
from kvar.analysis.exact import moments_of
from kvar.analysis.frames.recorded import moments_at
from kvar.commands.main import main
from kvar.gradients.recombine import recombine
from kvar.records import RunWriter, load
from kvar.report.advise import advise, advise_probes
from kvar.report.words.advice import WIDTH
from kvar.results.choices import choices
from kvar.results.probes import Probe, probe_of
from tests.report.small_runs import KERNELS, write_run

MANY = ("K=1", "K=4", "K=1 - leave-one-out", "K=2")
NORMALISED = "K=1 - group-normalised"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "a", prompts=240)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return write_run(
        tmp_path_factory.mktemp("runs") / "many",
        prompts=240,
        kernels=MANY,
        rename={"K=2": NORMALISED},
        objective="llmr",
    )


def known(between=1.0, within=4.0, prompts=400, rollouts=4, names=("K=1", "K=2"), seed=0, second=(0.8, 0.6)):
    """A probe of two estimators of known means, (1, 0) and ``second``; their noise is shared where these differ."""
    rng = np.random.default_rng(seed)
    mean = np.array([[1.0, 0.0], second])[:, None, None]
    draws = 1 if second != (1.0, 0.0) else 2
    noise = [
        math.sqrt(v / 2) * rng.standard_normal((draws, prompts, n, 2)) for v, n in ((between, 1), (within, rollouts))
    ]
    gradients = torch.from_numpy(mean + noise[0] + noise[1]).reshape(2, -1, 2)
    index = torch.arange(prompts).repeat_interleave(rollouts)
    return Probe("known", moments_of(gradients, index, names=list(names)), 10.0, batch=32)


def test_the_page_is_short_and_names_what_it_advises(run):
    text = str(advise(run, 640))
    lines = text.splitlines()
    assert len(lines) < 40 and max(map(len, lines)) <= WIDTH
    assert "nan" not in text and "inf" not in text.replace("information", "")
    assert text.count("<- advised") == 1
    for title in (
        "ADVICE for 640 sampled tokens",
        "Estimator.",
        "Prompts x responses.",
        "Size of the step.",
        "How sure.",
    ):
        assert title in text


def test_efficiencies_are_those_of_choose_k_at_the_same_step(run):
    length = float(run.read("trajectories", ["length"], {"position": 0})["length"].mean())
    advice = advise(run, 64 * length)
    (choice,) = choices([run], [64], [1])
    for name, value, low, high in choice.table[
        ["kernel", "efficiency", "efficiency_low", "efficiency_high"]
    ].to_numpy():
        row = advice.ranking[name]
        assert (row.rollouts, round(row.prompts, 6)) == (1, 64)
        np.testing.assert_allclose((row.efficiency.value, row.efficiency.low, row.efficiency.high), (value, low, high))
    np.testing.assert_allclose([row.chance for row in advice.ranking.rows], choice.table["efficiency_best"])


def test_known_shares_noise_and_bias_are_told():
    """Between 1 and within 4: of 800 tokens 40 prompts x 2 responses of 10 have a variance of (1 + 2) / 40."""
    advice = advise_probes([known(prompts=600)], 800)
    split = {row.rollouts: row for row in advice.split.rows}
    assert (advice.split.rollouts, split[2].prompts) == (1, 40)
    for r in (2, 4, 8):
        assert split[r].measured
        assert split[r].variance.value == pytest.approx((1 + 4 / r) * r / 5, rel=0.15)
        assert split[r].variance.low < (1 + 4 / r) * r / 5 < split[r].variance.high
    assert advice.split.share.value == pytest.approx(0.8, abs=0.04)
    assert advice.split.break_even.value == pytest.approx(2 / 4 * 10, rel=0.2)
    assert advice.snr.value == pytest.approx(1 / (5 / 80), rel=0.2)
    assert advice.estimator == "K=1"
    biased = advise_probes([known(prompts=600, names=("K=2", "K=1"))], 800)  # g* is (0.8, 0.6), K=2 is (1, 0)
    assert biased.estimator == "K=1"
    assert biased.ranking["K=2"].efficiency.value == pytest.approx(0.64 / (1 + 5 / 80), abs=0.05)


def test_a_prompts_cost_moves_the_split_to_where_it_is_least_noisy():
    advice = advise_probes([known(prompts=600)], 4000, prompt_cost=90.0)
    best = advice.split.optimum
    assert best.low < 6 < best.high and best.value == pytest.approx(6, rel=0.15)  # sqrt(4 / 1 * 90 / 10)
    assert abs(advice.split.rollouts - best.value) <= 1
    assert advice.split.prompts == pytest.approx(4000 / (90 + 10 * advice.split.rollouts))
    assert f"At 90 tokens a prompt the least noisy R is {best.value:.1f} [" in " ".join(str(advice).split())
    cheap = advise_probes(
        [known(prompts=600)], 4000, prompt_cost=0.5
    )  # R* = sqrt(4 x 0.05) = 0.4: none takes less than 1
    assert cheap.split.rollouts == 1 and cheap.split.optimum.high < 1
    assert "the least noisy R is 1 [1, 1]" in " ".join(str(cheap).split())


def test_the_advised_split_is_the_least_noisy_one_of_fresh_steps():
    """The variances of means of fresh steps of 240 tokens, beside the advised one's."""
    rng = np.random.default_rng(5)
    cost, length, tokens = 30.0, 10.0, 2400.0
    advised = advise_probes([known()], tokens, prompt_cost=cost).split.rollouts
    noise = {}
    for r in (1, advised, 12):
        m = int(tokens / (cost + r * length))
        means = rng.standard_normal((4000, m, 2)) / math.sqrt(2) + math.sqrt(2) * rng.standard_normal(
            (4000, m, r, 2)
        ).mean(2)
        noise[r] = means.mean(axis=1).var(axis=0).sum()
    assert advised in (3, 4)
    assert noise[advised] < 0.9 * noise[1] and noise[advised] < 0.9 * noise[12]


def test_leave_one_out_keeps_the_measured_responses_and_bounds_the_others(many):
    advice = advise(many, 640)
    rows = {row.name: row.rollouts for row in advice.ranking.rows}
    assert rows == {"K=1": 1, "K=4": 1, "K=1 - leave-one-out": 4, NORMALISED: 4}
    whole = probe_of(many)
    moments = recombine(whole.moments, torch.eye(4)[[2]], ["K=1 - leave-one-out"])
    alone = advise_probes([dataclasses.replace(whole, moments=moments)], 640)
    told = {row.rollouts: row for row in alone.split.rows}
    assert {r for r, row in told.items() if row.measured} == {4} and {2, 4, 8} <= set(told)
    b, w = 1 - alone.split.share.value, alone.split.share.value
    for r, factor in ((2, 3), (8, 3 / 7)):  # at R as measured, or (R' - 1) / (R - 1) times as much
        ends = sorted((b + f * w / r) * r / (4 * (b + w / 4)) for f in (1, factor))
        np.testing.assert_allclose((told[r].variance.low, told[r].variance.high), ends, rtol=1e-6)
    text = " ".join(str(alone).split())
    assert " 2* " in text and "It subtracts the mean of the other responses" in text and "measured alone" in text


def test_the_estimator_in_use_stays_where_it_is_not_told_from_the_best(many, tmp_path):
    advice = advise(many, 640)
    assert advice.current == "K=1"
    twins = known(prompts=60, second=(1.0, 0.0)).moments
    for current, words in (
        ("K=2", "The run trains with K=2, one of them: keep it."),
        (None, "K=1 is the simplest of those with half the largest efficiency or more: take it."),
        ("K=4", "The run trains with K=4, which was not measured."),
    ):
        text = " ".join(str(advise_probes([Probe("twins", twins, 10.0, current=current)], 100)).split())
        assert words in text and "cannot be told apart as the best of 2" in text


def test_a_target_that_is_not_resolved_keeps_the_estimator_and_says_how_many_prompts():
    weak = known(prompts=40, between=400.0, within=400.0)
    advice = advise_probes([dataclasses.replace(weak, current="K=2")], 320)
    assert advice.ranking.reason == "unresolved" and advice.estimator == "K=2"
    assert math.isnan(advice.efficiency.value)
    expected = plan(weak.moments, "K=1", unit="prompt").attrs["target_units"]
    assert advice.target_units == expected or (math.isinf(expected) and math.isinf(advice.target_units))
    text = str(advice)
    assert "keep your estimator" in text and "no reason to change the estimator, K=2" in text and "nan" not in text
    assert "not measured" not in text
    bare = str(advise_probes([dataclasses.replace(weak, current="kl immediate exact")], 320))
    assert "since the run's own was not measured: name it in probe_kernels" in " ".join(bare.split())


def test_what_leads_away_is_not_advised_for_being_simple():
    """K=1 has a mean of (-0.05, 0): not told from the best, but no estimator to take."""
    weak = known(between=2.0, within=2.0, prompts=40, names=("kl K=1", "K=1"), second=(-0.05, 0.3))
    advice = advise_probes([weak], 200, reference="kl K=1")
    assert advice.ranking["K=1"].efficiency.value < 0.5 * advice.ranking["kl K=1"].efficiency.value
    assert advice.estimator == "kl K=1"


def test_a_kernel_fitted_to_the_lags_is_advised_where_its_gain_is_resolved():
    """A later reward that points the other way: weight 1 at lag 0 and less than 0 later, far better than both."""
    rng = np.random.default_rng(1)
    now = np.array([1.0, 0.5]) + 0.5 * rng.standard_normal((600, 4, 2))
    later, last = (np.array([0.0, y]) + 0.5 * rng.standard_normal((600, 4, 2)) for y in (1.0, 0.5))
    target = np.array([1.0, 0.0]) + 0.2 * rng.standard_normal((600, 4, 2))
    gradients = torch.from_numpy(np.stack([now, now + later, now + later + last, target])).reshape(4, -1, 2)
    names = ["gap immediate", "gap window(2)", "gap K=1", "data"]
    moments = moments_of(gradients, torch.arange(600).repeat_interleave(4), names=names)
    advice = advise_probes([Probe("lags", moments, 10.0)], 640, reference="data")
    assert advice.ranking.reason == "fitted" and advice.estimator.startswith("gap stepwise(1:-0.")
    assert advice.fitted.gain.low > 0 and advice.efficiency.value > 0.9
    assert advice.limit.value == pytest.approx(1, abs=0.05)  # now - later / 2 is (1, 0), and so are others
    assert "Cross-fitted, its efficiency is" in " ".join(str(advice).split())


def test_one_response_a_prompt_tells_estimator_and_size_but_not_the_shares(tmp_path):
    run = write_run(tmp_path / "one", rollouts=1, prompts=200)
    advice = advise(run, 640)
    assert advice.split.share is None and advice.split.rollouts == 1
    text = " ".join(str(advice).split())
    assert "how much of the variance is within prompts is not known" in text and "never worse" in text
    assert "measure with 4." in " ".join(str(advise(run, 640, prompt_cost=10.0)).split())


def test_seeds_are_combined_and_one_measurement_is_not_taken_for_two(tmp_path):
    runs = [write_run(tmp_path / f"s{seed}", prompts=160, seed=seed) for seed in range(4)]
    advice = advise(runs, 640)
    single = [advise(r, 640).ranking["K=4"].efficiency.value for r in runs]
    assert (advice.units, advice.unit) == (4, "seeds")
    assert advice.ranking["K=4"].efficiency.value == pytest.approx(np.mean(single), rel=1e-3)
    half = 3.182446 * np.std(single, ddof=1) / 2
    assert advice.ranking["K=4"].efficiency.high - np.mean(single) == pytest.approx(half, rel=0.05)
    twin = write_run(tmp_path / "twin", prompts=160, seed=0)
    (twin.path / "config.json").write_text((twin.path / "config.json").read_text().replace('"seed": 0', '"seed": 9'))
    for function in (
        lambda: advise([runs[0], load(twin.path)], 640),
        lambda: choices([runs[0], load(twin.path)], [8], [1]),
    ):
        with pytest.raises(ValueError, match="are one and the same measurement"):
            function()


def test_other_probes_of_the_run_are_told_in_one_line(tmp_path):
    run = write_run(tmp_path / "steps", prompts=60, steps=(0, 10, 20), max_steps=40)
    advice = advise(run, 640, step=10)
    assert [step for step, _ in advice.over_training] == [0, 20]
    text = " ".join(str(advice).split())
    assert "Measured at step 10 of 40;" in text and "for the same budget, the advice is" in text
    parts = [(0, None), (10, None), (20, "K=1"), (30, "K=4"), (40, "K=4"), (50, "K=4")]
    told = " ".join(str(dataclasses.replace(advice, over_training=tuple(parts))).split())
    assert "not resolved at steps 0 and 10, K=1 at step 20 and K=4 at steps 30 to 50." in told
    assert "the first of 40 training steps" in " ".join(str(advise(run, 640, step=0)).split())


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"tokens": 0}, "tokens must be a positive number.*got 0"),
        ({"tokens": -5}, "tokens must be a positive number.*got -5"),
        ({"tokens": math.nan}, "tokens must be a positive number.*got nan"),
        ({"tokens": 100, "steps": 0}, "steps must be a whole number of at least 1.*got 0"),
        ({"tokens": 100, "steps": -3}, "steps must be a whole number of at least 1.*got -3"),
        ({"tokens": 100, "steps": 2.5}, "steps must be a whole number of at least 1.*got 2.5"),
        ({"tokens": 100, "steps": True}, "steps must be a whole number of at least 1.*got True"),
        ({"tokens": 2}, r"tokens=2 buys not one response: those measured have \d\.\d tokens.*Give at least \d"),
        ({"tokens": 100, "prompt_cost": -1}, "prompt_cost must be 0 or a positive number"),
        ({"tokens": 100, "prompt_cost": 200}, "its prompt costs 200 besides.*Give at least 20"),
        ({"tokens": 100, "group": "decoder"}, "no parameter group 'decoder'; measured groups: all"),
        ({"tokens": 100, "reference": "K=3"}, "reference 'K=3' is none of the estimators"),
        ({"tokens": 100, "step": 7}, r"no probe at step 7; choose of \[0\]"),
    ],
)
def test_bad_options_are_refused(run, options, match):
    with pytest.raises(ValueError, match=match):
        advise(run, **options)


def test_what_a_run_lacks_is_named(tmp_path, run):
    with RunWriter(tmp_path / "bare", {"seed": 0}):
        pass
    with pytest.raises(ValueError, match="holds no gradient probe; train it with probe_every"):
        advise(load(tmp_path / "bare"), 100)
    with pytest.raises(ValueError, match="has 2 prompts: advice needs intervals.*3 prompts at the least"):
        advise(write_run(tmp_path / "two", prompts=2), 100)
    with pytest.raises(ValueError, match="has no rows in trajectories.*probe again"):
        advise(without(run, tmp_path / "no-lengths", "trajectories"), 100)
    with pytest.raises(ValueError, match="prompt_gradients.*measure again"):
        advise(without(run, tmp_path / "no-prompts", "prompt_gradients"), 100)
    bad = known()
    bad.moments.pair[1, 1, 0] = math.nan
    with pytest.raises(ValueError, match="known: the gradients of K=2 in group 'all' are not finite"):
        advise_probes([bad], 100)
    loo = known(names=("K=1 - leave-one-out", "K=2 - leave-one-out"))
    with pytest.raises(ValueError, match="buys no prompt with the responses that the measured estimators take.* 20"):
        advise_probes([loo], 15)


def without(run, folder, table):
    """A copy of the run's records that lacks a table."""
    import shutil

    shutil.copytree(run.path, folder)
    shutil.rmtree(folder / table)
    return load(folder)


def test_the_command_prints_the_page(run, capsys):
    assert main(["advise", str(run.path), "--tokens", "1,000", "--target", "J"]) == 0
    assert "ADVICE for 1,000 sampled tokens a step: " in capsys.readouterr().out
    for words, match in (
        (["--tokens", "many"], "must be a number; got 'many'"),
        (["--tokens", "0"], "tokens must be a positive number"),
        (["--group", "nix"], "no parameter group 'nix'"),
        (["--steps", "0"], "must be a whole number of at least 1; got '0'"),
        (["--steps", "1.5"], "must be a whole number of at least 1; got '1.5'"),
    ):
        assert main(["advise", str(run.path), *words]) == 2
        assert match in capsys.readouterr().err
    assert main(["advise", str(run.path)]) == 0
    assert "kvar's own step of 64 responses" in capsys.readouterr().out
    assert main(["advise", str(run.path), "--tokens", "640", "--steps", "1000"]) == 0
    assert "a step, and for the mean of 1,000 steps: " in capsys.readouterr().out


def test_kernels_measured_are_those_of_the_run(run):
    assert [row.name for row in advise(run, 640).ranking.rows] == list(KERNELS)
    assert efficiency(moments_at(run, "probe", 0), 64, unit="prompt").value.shape == (4,)
