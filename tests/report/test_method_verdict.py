"""The verdict of a study in one sentence and one small table: counts of what intervals over seeds resolve."""

from __future__ import annotations

import pandas as pd

from kvar.report.words.by_method import method_counts, study_lead
from kvar.results.compare import compare_methods

METRICS = {"sums": "bleu"}


def outcomes(means: dict[str, dict[str, float]], noise: float = 0.1) -> pd.DataFrame:
    """Student -> method -> mean, of three seeds each."""
    rows = [
        ("sums", student, method, seed, "bleu", mean + noise * (seed - 1) * (1 if method < "c" else -1))
        for student, methods in means.items()
        for method, mean in methods.items()
        for seed in range(3)
    ]
    return pd.DataFrame(rows, columns=["task", "student", "method", "seed", "outcome", "value"])


def test_the_lead_names_the_methods_that_are_most_often_best():
    told = outcomes({"small": {"a": 1.0, "b": 5.0, "c": 3.0}, "large": {"a": 1.0, "b": 5.0, "c": 9.0}})
    assert study_lead(told, METRICS) == "b, c are the best, or not told from it, in 1 of 2 pairs of task and student."
    one = outcomes({"small": {"a": 1.0, "b": 5.0}})
    assert study_lead(one, METRICS) == "b is the best, or not told from it, in 1 of 1 pairs of task and student."
    assert study_lead(one[one["seed"] == 0], METRICS).startswith("No method is told from another")


def test_the_table_counts_what_is_resolved_against_each_reference():
    told = outcomes({"small": {"a": 1.0, "b": 5.0, "c": 5.01}, "large": {"a": 1.0, "b": 0.0, "c": 9.0}})
    table = method_counts(compare_methods(told, references=["a", "c"]), told, METRICS, ["a", "c"]).set_index("method")
    assert table["best or not told from it, of 2"].to_dict() == {"a": 0, "b": 1, "c": 2}
    assert table["better than a"].to_dict() == {"a": None, "b": 1, "c": 2}
    assert table["worse than a"].to_dict() == {"a": None, "b": 1, "c": 0}
    assert table["worse than c"].to_dict() == {"a": 2, "b": 1, "c": None}
