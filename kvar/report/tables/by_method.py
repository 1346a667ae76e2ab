"""The tables of a study of methods: which there are, and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kvar.intervals import Interval
from kvar.plots.parts.ticks import compact_count
from kvar.report.tables.paper import markdown, paper_cells
from kvar.results.compare import LOWER_IS_BETTER, NEITHER

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["StudyTable", "estimators_shown", "method_tables", "ranks_shown", "titles_of"]

MARKS = (
    "Bold: the best mean of the column and every method whose paired difference to it, seed by seed, spans zero; "
    "choosing the best by the same numbers favours it. "
)


@dataclass(frozen=True)
class StudyTable:
    """A table with a row a method.

    Attributes:
        title: heading.
        note: how to read it.
        cells: of ``paper_cells``.
        titles: heads of its columns.
    """

    title: str
    note: str
    cells: pd.DataFrame
    titles: dict[Any, str]

    def text(self, full: int) -> str:
        """Heading, note and table in Markdown."""
        return f"## {self.title}\n\n{self.note}\n\n{markdown(self.cells, self.titles, full)}\n"

    def frame(self) -> pd.DataFrame:
        """The cells under their heads, methods as the first column, for the page."""
        table = self.cells.copy()
        table.columns = [self.titles[column] for column in self.cells.columns]
        return table.reset_index(names="method")


def method_tables(
    cells: pd.DataFrame,
    outcomes: pd.DataFrame,
    compared: pd.DataFrame,
    metrics: Mapping[str, str],
    teachers: Mapping[str, Mapping[str, Interval]],
    *,
    reference: str,
    start: str,
) -> list[StudyTable]:
    """Scores in the paper's form; their paired differences; J; then every outcome of every task.

    Args:
        cells: of ``StudyValues``.
        outcomes: of ``StudyValues``.
        compared: of ``compare_methods``.
        metrics: task -> main metric.
        teachers: of ``teacher_scores``.
        reference: method that others are compared with.
        start: method that others start from.
    """
    sizes = cells.groupby(["task", "student"], observed=True)["parameters"].max()
    tasks = list(dict.fromkeys(cells["task"]))
    ordered = sizes.reset_index().sort_values(["parameters", "student"], kind="stable")
    students = {task: list(ordered[ordered["task"] == task]["student"]) for task in tasks}
    methods = list(dict.fromkeys(cells["method"]))
    present = set(map(tuple, outcomes[["task", "outcome"]].drop_duplicates().to_numpy()))

    def table(title: str, note: str, columns: Sequence[tuple[str, str]], quantity: str, top: bool) -> list[StudyTable]:
        known = [column for column in columns if column in present]
        if not known:
            return []
        shown = paper_cells(
            outcomes, compared, known, methods=methods, students=students, quantity=quantity,
            teachers=teachers if top and teachers else None,
        )  # fmt: skip
        shown = shown[shown.notna().any(axis=1) | shown.index.isin(methods)]
        if quantity != "value" and quantity.removeprefix("less_") in shown.index:
            shown = shown.drop(index=quantity.removeprefix("less_"))
        return [StudyTable(title, note, shown, titles_of(shown, sizes))]

    scores = [(task, metric) for task, metric in metrics.items()]
    gaps = [(task, "total_gap") for task in tasks]
    mean = "Mean over seeds ± half of its 95 % t interval over seeds. "
    less = "Mean over seeds of the difference, paired by seed, ± half of its 95 % t interval over seeds. "
    gap = (
        "Mean total gap of sampled responses at the last probe; J is a constant less this, so less is better, though a "
        "shorter response has less of it too. "
    )
    tables = table("Scores", mean + MARKS, scores, "value", True)
    for name in (reference, start):
        tables += table(f"Scores, less those of {name}", less, scores, f"less_{name}", False)
    tables += table("Total gap", gap + mean + MARKS, gaps, "value", False)
    for name in (reference, start):
        tables += table(f"Total gap, less that of {name}", less + "Below zero is better.", gaps, f"less_{name}", False)
    per_token = "Total gap over the number of tokens of sampled responses: what is left of J when length is set aside. "
    rates = [(task, "gap_per_token") for task in tasks]
    tables += table("Gap per token", per_token + mean + MARKS, rates, "value", False)
    tables += table(
        f"Gap per token, less that of {reference}", less + "Below zero is better.", rates, f"less_{reference}", False
    )
    for task in tasks:
        others = [
            name for t, name in present if t == task and name not in (metrics.get(task), "total_gap", "gap_per_token")
        ]
        order = list(dict.fromkeys(outcomes["outcome"]))
        for name in sorted(others, key=order.index):
            marks = "" if name in NEITHER else MARKS
            marks += "Less is better." if name in LOWER_IS_BETTER else ""
            tables += table(f"{task}: {name}".removeprefix(": "), mean + marks, [(task, name)], "value", True)
    return tables


def titles_of(cells: pd.DataFrame, sizes: pd.Series) -> dict[Any, str]:
    """Heads such as "translation bleu, small (0.3M)"."""
    titles = {}
    counts: dict[Any, float] = sizes.to_dict()
    columns: list[Any] = list(cells.columns)
    for task, outcome, student in columns:
        count = counts[task, student]
        size = f" ({compact_count(float(count))})" if count == count else ""
        titles[task, outcome, student] = f"{task} {outcome}, {student}{size}".strip()
    return titles


def estimators_shown(frame: pd.DataFrame) -> pd.DataFrame:
    """What was measured of each method's estimator, one row a (task, student, method), as cells with intervals.

    Args:
        frame: of ``methods_frame``.
    """
    import pandas as pd

    def cell(row: Mapping[Any, Any], name: str, when: str) -> Interval | None:
        place = f"{name}_at_{when}"
        if place not in row or row[place] != row[place]:
            return None
        seeds = row[f"n_at_{when}"]
        return Interval(row[place], row[f"{place}_low"], row[f"{place}_high"], n=int(seeds))

    rows = []
    for row in frame.to_dict("records"):
        line: dict[str, object] = {"task": row["task"], "student": row["student"], "method": row["method"]}
        estimator = row["estimator"]
        line["estimator"] = (
            "none: no policy gradient" if estimator is None or estimator != estimator
            else estimator if row["probed"] else f"{estimator} (not probed)"
        )  # fmt: skip
        for when in ("start", "after"):
            for name in ("trace", "relative_variance", "bias_sq", "efficiency"):
                line[f"{name.replace('_', ' ')}, {when}"] = cell(row, name, when)
            best, chance = row.get(f"best_k_at_{when}"), row.get(f"best_k_at_{when}_p")
            known = isinstance(best, str)
            line[f"best K, {when}"] = (
                f"{best} (p = {chance:.2f})" if known and chance == chance else best if known else None
            )
        rows.append(line)
    return pd.DataFrame(rows)


def ranks_shown(ranks: pd.DataFrame) -> pd.DataFrame:
    """Rank correlations as cells with intervals."""
    import pandas as pd

    out = ranks[["task", "student", "outcome", "statistic", "methods", "seeds"]].copy()
    intervals: list[Any] = [
        Interval(row["rho"], row["low"], row["high"]) if row["rho"] == row["rho"] else None
        for row in ranks.to_dict("records")
    ]
    out["less noise, more gain: rho"] = pd.Series(intervals, index=out.index, dtype=object)
    out["p"] = ranks["p"]
    return out
