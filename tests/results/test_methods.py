"""Methods side by side, against means, intervals and paired differences worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from kvar.analysis.frames.recorded import statistics_of
from kvar.intervals import Interval
from kvar.records import load
from kvar.records.study_folder import is_grid
from kvar.report.tables.paper import markdown, paper_cells, plus_minus
from kvar.results.combined import best_chances
from kvar.results.compare import compare_methods, main_outcomes, methods_frame, not_resolved_from_best
from kvar.results.outcomes import read_study_runs
from kvar.results.ranks import gains, rank_table
from kvar.results.study_cells import study_cells, trained_estimator
from kvar.results.trained_estimators import best_kernel, estimator_table, estimator_values
from tests.report.small_runs import write_run
from tests.report.study_folders import write_study

T2 = 4.302652729696142  # 97.5 % of Student's t with two degrees of freedom


def long(values, outcome="bleu", task="t", student="s"):
    """Outcomes from method -> numbers of seeds 0, 1, ...; None is a missing cell."""
    rows = [
        (task, student, method, seed, outcome, value)
        for method, numbers in values.items()
        for seed, value in enumerate(numbers)
        if value is not None
    ]
    return pd.DataFrame(rows, columns=["task", "student", "method", "seed", "outcome", "value"])


def only(table, method):
    (row,) = table[table["method"] == method].to_dict("records")
    return row


def test_mean_interval_and_paired_difference_by_hand():
    outcomes = long({"start": [10, 20, 30], "llmr": [11, 22, 33], "K=4": [12, 23, 34]})
    row = only(compare_methods(outcomes), "K=4")
    assert (row["n"], row["value"]) == (3, 23.0)
    half = T2 * 11 / np.sqrt(3)  # the standard deviation of 12, 23, 34 is 11
    assert (row["low"], row["high"]) == (pytest.approx(23 - half), pytest.approx(23 + half))
    # differences to llmr are 1, 1, 1: resolved, though the seeds are 11 apart
    assert (row["less_llmr"], row["less_llmr_low"], row["less_llmr_high"]) == (1.0, 1.0, 1.0)
    # differences to start are 2, 3, 4: mean 3, standard deviation 1
    assert row["less_start"] == 3.0
    assert row["less_start_high"] == pytest.approx(3 + T2 / np.sqrt(3))
    own = only(compare_methods(outcomes), "llmr")
    assert (own["less_llmr"], own["less_llmr_low"], own["less_llmr_n"]) == (0.0, 0.0, 3)


def test_missing_cells_are_counted_and_never_invented():
    table = compare_methods(
        long({"start": [1, 2, 3], "llmr": [None, 2, 4], "K=4": [5, None, None], "K=8": [None, 7, 9]})
    )
    lone = only(table, "K=4")
    assert (lone["n"], lone["value"]) == (1, 5.0)
    assert np.isnan([lone["low"], lone["high"], lone["less_llmr"], lone["less_start_low"]]).all()
    assert (lone["less_llmr_n"], lone["less_start_n"], lone["less_start"]) == (0, 1, 4.0)
    pair = only(table, "K=8")
    assert (pair["n"], pair["less_llmr_n"], pair["less_llmr"]) == (2, 2, 5.0)
    without = compare_methods(long({"K=4": [1, 2]}), references=["llmr"])
    assert np.isnan(only(without, "K=4")["less_llmr"])


def test_one_seed_given_twice_is_refused():
    with pytest.raises(ValueError, match=r"seed 0 occurs twice for task=t, student=s, method=a"):
        compare_methods(pd.concat([long({"a": [1]}), long({"a": [2]})]))


def test_the_best_and_what_is_not_told_from_it():
    values = {"a": [1, 2, 3], "b": [1.9, 3.1, 4.0], "c": [1.8, 2.9, 4.2], "alone": [99, None, None]}
    # b - a: 0.9, 1.1, 1.0, resolved; b - c: 0.1, 0.2, -0.2, not
    assert not_resolved_from_best(long(values), "bleu") == {("t", "s"): {"b", "c"}}
    assert not_resolved_from_best(long(values, "total_gap"), "total_gap") == {("t", "s"): {"a"}}  # less is better
    assert not_resolved_from_best(long({"a": [1], "b": [2]}), "bleu") == {}


def test_table_in_the_papers_form():
    values = {"start": [1, 2, 3], "b": [1.9, 3.1, 4.0], "c": [1.8, 2.9, 4.2], "alone": [99, None, None]}
    outcomes = long(values)
    cells = paper_cells(
        outcomes, compare_methods(outcomes), [("t", "bleu")], methods=[*values, "failed"], students={"t": ["s"]},
        teachers={"t": {"bleu": Interval(5.5)}},
    )  # fmt: skip
    text = markdown(cells, {("t", "bleu", "s"): "t bleu, s"}, full=3).splitlines()
    assert text[0] == "| method | t bleu, s |"
    half = T2 / np.sqrt(3)
    assert text[2] == "| teacher | 5.50 |"
    assert text[3] == f"| start | 2.00 ± {half:.2f} |"
    assert text[4].startswith("| b | **3.00 ± ") and text[5].startswith("| c | **2.97 ± ")
    assert text[6:] == ["| alone | 99.00 (n=1) |", "| failed |  |"]
    less = paper_cells(
        outcomes,
        compare_methods(outcomes),
        [("t", "bleu")],
        methods=["b"],
        students={"t": ["s"]},
        quantity="less_start",
    )
    assert plus_minus(less.iloc[0, 0], 2, 3) == f"1.00 ± {T2 * 0.1 / np.sqrt(3):.2f}"


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"objective": "llmr", "baseline": "minimum-variance"}, "K=1 - minimum-variance"),
        ({"objective": "ketchup", "kernel": "inf"}, "immediate"),
        ({"kernel": "K=8"}, "K=8"),
        ({"objective": "gkd"}, None),
    ],
)
def test_the_estimator_that_a_method_trains_with(config, name):
    assert trained_estimator(config) == name


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    steps = {"start": 0, "kl": 1, "llmr": 2, "llmr-mean": 3, "K=2": 4, "K=4": 5, "immediate": 6}
    return write_study(
        tmp_path_factory.mktemp("methods") / "study",
        lambda task, student, method, seed: 10 * seed + steps[method],
        gap=lambda task, student, method, seed: 100 + seed - steps[method],
        students={"small": 1_000},
        missing=["sums/small/K=4/seed-2"],
    )


@pytest.fixture(scope="module")
def values(study):
    return read_study_runs(study_cells(study), batch=16)


def test_cells_of_a_study(study, tmp_path):
    cells = study_cells(study)
    assert is_grid(study) and not is_grid(tmp_path)
    assert len(cells) == 21
    assert [cell.method for cell in cells if not cell.finished] == ["K=4"]
    assert (cells[0].start, cells[-1].start, cells[-1].task) == (None, "start", "sums")
    with pytest.raises(ValueError, match=r"holds no study\.json"):
        study_cells(tmp_path)
    (tmp_path / "study.json").write_text("[]")
    with pytest.raises(ValueError, match="is not what kvar study writes"):
        study_cells(tmp_path)


def test_outcomes_are_those_of_the_evaluation_the_probe_and_the_logs(values):
    table = values.outcomes.set_index(["method", "seed", "outcome"])["value"]
    assert table["K=2", 1, "bleu"] == 14.0
    assert table["K=2", 1, "total_gap"] == 97.0
    assert table["K=2", 1, "probe_length"] == 6.0
    assert table["K=2", 1, "train_total_gap"] == pytest.approx(97 * np.mean([1 + 1 / 10, 1 + 1 / 20, 1 + 1 / 30]))
    assert ("kl", 0, "total_gap") not in table.index and ("K=4", 2, "bleu") not in table.index
    assert main_outcomes(values.outcomes) == {"sums": "bleu"}
    assert set(values.curves[values.curves["method"] == "kl"]["quantity"]) == {"loss"}


def test_estimators_are_measured_at_the_start_of_the_same_seed_and_by_the_own_last_probe(study, values):
    table = estimator_values(values.cells, values.statistics)
    own = table[(table["method"] == "K=2") & (table["seed"] == 1)].set_index("when")
    assert list(own["estimator"]) == ["K=2", "K=2"]
    start = statistics_of(load(study / "sums" / "small" / "start" / "seed-1"), "s", batch=16)
    at = start[(start["kernel"] == "K=2")].set_index("statistic")["value"]
    assert own.loc["start", "trace"] == pytest.approx(at["trace"])
    assert own.loc["start", "efficiency"] == pytest.approx(at["efficiency"], nan_ok=True)
    assert not len(table[table["method"].isin(["kl", "llmr-mean"])])  # none, and one that was not probed
    probed = values.cells.set_index(["method", "seed"])["probed"]
    assert probed["K=2", 0] and not probed["llmr-mean", 0] and not probed["kl", 0]


def test_one_row_a_method_with_everything(values):
    compared = compare_methods(values.outcomes)
    frame = methods_frame(values.cells, compared, estimator_table(values.cells, values.statistics)).set_index("method")
    assert list(frame.index) == ["start", "kl", "llmr", "llmr-mean", "K=2", "K=4", "immediate"]
    assert frame.loc["K=4", ["planned", "seeds"]].tolist() == [3, 2]
    assert frame.loc["K=4", "bleu_less_llmr"] == 3.0 and frame.loc["K=4", "total_gap_less_start"] == -5.0
    assert (
        np.isnan(frame.loc["llmr-mean", "trace_at_start"]) and frame.loc["llmr-mean", "estimator"] == "K=1 - batch-mean"
    )
    traces = values.statistics.query("method == 'start' and kernel == 'K=2' and statistic == 'trace'")["value"]
    assert frame.loc["K=2", "trace_at_start"] == pytest.approx(np.exp(np.log(traces).mean()))
    both = values.statistics.query("method == 'start' and kernel == 'K=2'").groupby("statistic")["value"].mean()
    assert frame.loc["K=2", "relative_variance_at_start"] == pytest.approx(both["trace"] / both["signal"])


def test_best_kernel_is_that_of_the_best_mean_and_blank_where_a_seed_has_none():
    rows = [
        ("t", "s", "start", seed, "all", kernel, k, "efficiency", value)
        for (kernel, k), numbers in {("K=1", 1.0): [0.1, 0.2, 0.1], ("K=4", 4.0): [0.5, 0.6, 0.4]}.items()
        for seed, value in enumerate(numbers)
    ]
    columns = ["task", "student", "method", "seed", "group", "kernel", "k", "statistic", "value"]
    frame = pd.DataFrame(rows, columns=columns)
    name, chance = best_kernel(frame)["t", "s", "start"]
    assert name == "K=4" and chance > 0.95
    assert best_kernel(frame.replace(0.2, np.nan)) == {}
    assert best_kernel(frame.iloc[:0]) == {}


def test_gains_and_their_rank_correlation_with_noise():
    methods, seeds = ["llmr", "K=2", "K=4"], range(3)
    estimators = pd.DataFrame(
        [("t", "s", m, seed, "start", 4.0 - i, 0.1 * i, 0.2 * i) for i, m in enumerate(methods) for seed in seeds],
        columns=["task", "student", "method", "seed", "when", "trace", "efficiency", "snr"],
    )
    outcomes = pd.concat([
        long({"start": [0, 0, 0], "llmr": [1, 1, 1], "K=2": [2, 2, 2], "K=4": [3, 3, 3]}),
        long({"start": [9, 9, 9], "llmr": [7, 7, 7], "K=2": [8, 8, 8], "K=4": [8.5, 8.5, 8.5]}, "total_gap"),
    ])  # fmt: skip
    found = gains(outcomes, estimators, {"t": "bleu"}, statistic="efficiency")
    assert found[found["outcome"] == "J"].groupby("method")["y"].mean().to_dict() == {"llmr": 2, "K=2": 1, "K=4": 0.5}
    table = rank_table(outcomes, estimators, {"t": "bleu"}).set_index(["outcome", "statistic"])
    for statistic in ("trace", "snr", "efficiency"):
        assert table.loc[("bleu", statistic), "rho"] == pytest.approx(1.0)  # less noise, more score
        assert table.loc[("J", statistic), "rho"] == pytest.approx(-1.0)
        assert table.loc[("J", statistic), ["methods", "seeds"]].tolist() == [3, 3]
    assert "all" not in set(table["task"])  # one pair of task and student is no sample of pairs


def test_rank_correlation_over_pairs_counts_one_order_once():
    methods = ["llmr", "K=2", "K=4"]
    rows, outcomes = [], []
    for student, seed in itertools.product("abcd", range(3)):
        rows += [("t", student, m, seed, "start", 4.0 - i, 0.1 * i, 0.2 * i) for i, m in enumerate(methods)]
    for student in "abcd":
        outcomes.append(long({"start": [0] * 3, "llmr": [1] * 3, "K=2": [2] * 3, "K=4": [3] * 3}, student=student))
    columns = ["task", "student", "method", "seed", "when", "trace", "efficiency", "snr"]
    table = rank_table(pd.concat(outcomes), pd.DataFrame(rows, columns=columns), {"t": "bleu"})
    (pooled,) = table[(table["task"] == "all") & (table["statistic"] == "efficiency")].to_dict("records")
    assert (pooled["rho"], pooled["seeds"]) == (pytest.approx(1.0), 4)
    assert pooled["p"] == pytest.approx(2 / 6)  # three methods: one order in six, and its reverse


def test_probes_measured_afterwards_are_found(tmp_path):
    folder = write_study(
        tmp_path / "study",
        lambda *key: 1.0,
        students={"small": 1_000},
        methods=("start", "kl"),
        seeds=(0, 1),
        probes=False,
    )
    assert not len(read_study_runs(study_cells(folder), batch=16).statistics)
    write_run(folder / "sums" / "small" / "kl" / "seed-1" / "probe", prompts=8, seed=3)
    statistics = read_study_runs(study_cells(folder), batch=16).statistics
    assert set(zip(statistics["method"], statistics["seed"], strict=True)) == {("kl", 1)}


def test_a_study_without_a_finished_cell_is_refused(tmp_path):
    names = [f"sums/{student}/start/seed-0" for student in ("small", "large")]
    tmp_path.joinpath("study").mkdir()
    folder = write_study(tmp_path / "study", lambda *key: 1.0, methods=("start",), missing=names, seeds=(0,))
    with pytest.raises(ValueError, match="none of the study's 2 cells is finished"):
        read_study_runs(study_cells(folder), batch=16)


def test_seeds_without_a_direction_give_no_best_error():
    """A seed whose |g*|^2 is not resolved has no efficiency; its squared error says nothing of the best."""
    place = {"task": "t", "student": "s", "parameters": 9, "method": "m", "step": 0, "group": "all"}
    rows = [
        {**place, "seed": seed, "kernel": f"K={k}", "k": float(k), "statistic": statistic, "value": k + 0.1 * seed}
        for seed in range(3)
        for k in (1, 2)
        for statistic in ("efficiency", "mse")
    ]
    frame = pd.DataFrame(rows)
    assert best_chances(frame, "mse")["value"].tolist() == [1.0, 0.0]
    frame.loc[(frame["seed"] == 1) & (frame["statistic"] == "efficiency"), "value"] = np.nan
    assert best_chances(frame, "mse").empty and best_chances(frame).empty
