"""What a study of methods found, in sentences computed from its numbers and their intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kvar.results.compare import LOWER_IS_BETTER, not_resolved_from_best

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["method_counts", "study_lead", "study_verdict"]


def study_verdict(
    cells: pd.DataFrame,
    outcomes: pd.DataFrame,
    compared: pd.DataFrame,
    ranks: pd.DataFrame,
    metrics: Mapping[str, str],
    *,
    reference: str,
    start: str,
) -> list[str]:
    """Sentences in reading order: what there is; better than start and reference; the best; noise against gain.

    Args:
        cells: of ``StudyValues``.
        outcomes: of ``StudyValues``.
        compared: of ``compare_methods``.
        ranks: of ``rank_table``.
        metrics: task -> main metric.
        reference: method that others are compared with.
        start: method that others start from.
    """
    done = int(cells["finished"].sum())
    tasks, students, methods, seeds = (cells[name].nunique() for name in ("task", "student", "method", "seed"))
    said = [
        f"{done} of {len(cells)} cells are finished, of {tasks} tasks, {students} students, {methods} methods with "
        f"their start, and {seeds} seeds. Brackets and ± are 95 % t intervals over seeds, differences are paired by "
        "seed, and nothing is corrected for many comparisons: one in forty lies beyond its interval on either side by "
        "chance alone."
    ]
    for name in dict.fromkeys((start, reference)):
        for what, wanted in (("score", list(metrics.values())), ("J", ["total_gap"])):
            said += _counts(compared, name, what, wanted)
    for task, metric in metrics.items():
        alike = {
            student: names for (t, student), names in not_resolved_from_best(outcomes, metric).items() if t == task
        }
        if alike:
            each = [f"{student}: {', '.join(sorted(names))}" for student, names in alike.items()]
            said.append(f"{task or 'The task'}, {metric}; not told from the best, by student: {'; '.join(each)}.")
    return said + [_rank(row) for row in ranks.to_dict("records") if row["task"] == "all" and row["rho"] == row["rho"]]


def _rank(row: Mapping[Hashable, Any]) -> str:
    """What a pooled rank correlation says."""
    names = {"trace": "smaller tr Cov(g)", "snr": "larger signal-to-noise ratio", "efficiency": "larger efficiency"}
    if row["low"] <= 0 <= row["high"]:
        what = "the interval spans zero"
    elif row["p"] > 0.05:
        what = "the interval leaves out zero, yet it cannot be distinguished from chance among so few methods"
    else:
        what = "less noise, more gain" if row["low"] > 0 else "less noise, less gain"
    return (
        f"Across {row['methods']} methods, a {names[row['statistic']]} at the start goes with a gain in "
        f"{row['outcome']} by a mean rank correlation of {row['rho']:.2f} ({row['low']:.2f} to {row['high']:.2f} over "
        f"{row['seeds']} pairs of task and student; p = {row['p']:.2f} if methods are exchanged alike in all): {what}."
    )


def study_lead(outcomes: pd.DataFrame, metrics: Mapping[str, str]) -> str:
    """The verdict in one sentence: which methods are most often the best or not told from it.

    Args:
        outcomes: of ``StudyValues``.
        metrics: task -> main metric.
    """
    times, pairs = _times_best(outcomes, metrics)
    if not times:
        return "No method is told from another: no score has two seeds of a method or more."
    most = max(times.values())
    names = [name for name, count in times.items() if count == most]
    be = "is" if len(names) == 1 else "are"
    return f"{', '.join(names)} {be} the best, or not told from it, in {most} of {pairs} pairs of task and student."


def _times_best(outcomes: pd.DataFrame, metrics: Mapping[str, str]) -> tuple[Counter[str], int]:
    """Method -> pairs of task and student in which it is the best or not told from it; and how many pairs there are."""
    alike = [
        names
        for task, metric in metrics.items()
        for (at, _), names in not_resolved_from_best(outcomes, metric).items()
        if at == task
    ]
    return Counter(name for names in alike for name in sorted(names)), len(alike)


def method_counts(
    compared: pd.DataFrame, outcomes: pd.DataFrame, metrics: Mapping[str, str], references: Sequence[str]
) -> pd.DataFrame:
    """The verdict as a table of a row a method: in how many pairs of task and student its score is how good.

    Args:
        compared: of ``compare_methods``.
        outcomes: of ``StudyValues``.
        metrics: task -> main metric.
        references: methods that others are compared with.
    """
    import pandas as pd

    times, pairs = _times_best(outcomes, metrics)
    methods = list(dict.fromkeys(compared["method"]))
    columns: dict[str, list[Any]] = {"method": methods}
    if pairs:
        columns[f"best or not told from it, of {pairs}"] = [times[name] for name in methods]
    for reference in references:
        rows = _resolved(compared, reference, list(metrics.values()))
        if len(rows):
            sums = rows.groupby("method", observed=True)[["better", "worse"]].sum().astype(int)
            for what in ("better", "worse"):
                columns[f"{what} than {reference}"] = [
                    int(sums[what][name]) if name in sums.index else None for name in methods
                ]
    return pd.DataFrame(columns, dtype=object)


def _resolved(compared: pd.DataFrame, name: str, outcomes: list[str]) -> pd.DataFrame:
    """Rows compared with one method, and whether each is better or worse beyond its paired interval."""
    column = f"less_{name}"
    rows = compared[compared["outcome"].isin(outcomes) & (compared["method"] != name)]
    if column not in compared:
        return rows[:0]
    rows = rows.dropna(subset=[f"{column}_low"])
    less = rows["outcome"].isin(LOWER_IS_BETTER)
    above, below = rows[f"{column}_low"] > 0, rows[f"{column}_high"] < 0
    return rows.assign(better=above & ~less | below & less, worse=below & ~less | above & less)


def _counts(compared: pd.DataFrame, name: str, what: str, outcomes: list[str]) -> list[str]:
    """How many methods and students are better or worse than one method beyond the paired interval."""
    rows = _resolved(compared, name, outcomes)
    if not len(rows):
        return []
    return [
        f"Against {name}, {what} is resolved better for {rows['better'].sum()} and worse for {rows['worse'].sum()} of "
        f"{len(rows)} (method, student, task) triples."
    ]
