"""Text, numbers and page of a study's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvar.intervals import number
from kvar.records.parts import replace_file
from kvar.report.page.document import write_page
from kvar.report.page.embed import data_uri
from kvar.report.page.sections import grid, section
from kvar.report.tables.by_method import StudyTable, estimators_shown, ranks_shown
from kvar.results.outcomes import StudyValues

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ESTIMATORS_NOTE", "RANKS_NOTE", "methods_text", "write_method_page", "write_numbers"]

ESTIMATORS_NOTE = (
    "Of the estimator that each method trains with, as measured on the student that it starts from (the same for all "
    "methods of a seed) and by the method's own last probe: tr Cov(g), geometric mean over seeds; tr Cov / |E g|^2, "
    "mean over mean with Fieller's interval, infinite where the signal is not resolved; squared bias; efficiency at "
    "the training batch; 95 % intervals over seeds. Best K: the kernel of the largest mean efficiency, with its "
    "probability over seeds. Blank: not measured, or not resolved in some seed."
)
RANKS_NOTE = (
    "Spearman's rank correlation across the methods whose estimator was probed, in each seed, then averaged: positive "
    "where the less noisy estimator at the start (smaller trace, larger signal-to-noise ratio, larger efficiency) "
    "gained more. Intervals over seeds (rows of all tasks: over pairs of task and student); p by exchanging methods "
    "in all seeds alike. The trace orders kernels nearly by K alone, on account of their scale; read efficiency first."
)


def methods_text(
    verdict: Sequence[str],
    tables: Sequence[StudyTable],
    frame: pd.DataFrame,
    ranks: pd.DataFrame,
    notes: Sequence[str],
    full: int,
) -> str:
    """The text of ``methods.md``."""
    parts = ["# Methods\n", *(f"{sentence}\n" for sentence in verdict), *(table.text(full) for table in tables[:1])]
    if len(ranks):
        parts += ["## Noise at the start against gain\n", f"{RANKS_NOTE}\n", _markdown(ranks_shown(ranks))]
    parts += [table.text(full) for table in tables[1:]]
    measured = frame[frame["probed"]]
    if len(measured):
        parts += ["## Estimators\n", f"{ESTIMATORS_NOTE}\n", _markdown(estimators_shown(measured))]
    return "\n".join([*parts, "## Notes\n", *(f"- {note}" for note in notes), ""])


def _markdown(table: pd.DataFrame) -> str:
    def text(value: Any) -> str:
        if value is None or value != value:
            return ""
        return number(value) if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(map(str, table.columns)) + " |", "|" + "---|" * len(table.columns)]
    lines += ["| " + " | ".join(map(text, row)) + " |" for row in table.itertuples(index=False)]
    return "\n".join(lines) + "\n"


def write_numbers(folder: Path, values: StudyValues, frame: pd.DataFrame, ranks: pd.DataFrame) -> None:
    """``methods.csv``, ``ranks.csv`` and, as Parquet, statistics, outcomes and curves of every seed, in 32 bits."""
    frame.to_csv(folder / "methods.csv", index=False, float_format="%.6g")
    ranks.to_csv(folder / "ranks.csv", index=False, float_format="%.4g")
    for name, table in (("statistics", values.statistics), ("outcomes", values.outcomes), ("curves", values.curves)):
        small = table[table["value"].notna()] if len(table) else table
        types: dict[str, Any] = {}
        for column, kind in small.dtypes.items():
            if kind == "float64":
                types[str(column)] = "float32"
            elif str(kind) in ("object", "str", "string"):
                types[str(column)] = "category"
        whole = small.astype(types).to_parquet(index=False, compression="zstd")
        replace_file(folder / f"{name}.parquet", whole)  # an earlier one may be the only record of its runs


def write_method_page(
    path: Path,
    *,
    lead: str,
    counts: pd.DataFrame,
    verdict: Sequence[str],
    figures: Mapping[str, Path],
    tables: Sequence[StudyTable],
    frame: pd.DataFrame,
    ranks: pd.DataFrame,
    notes: Sequence[str],
    provenance: Mapping[str, Any],
    statistics: pd.DataFrame,
    ending: Mapping[str, Any],
) -> None:
    """The page: verdict, scores, the plot over ``statistics``, figures, correlations, tables, notes, provenance.

    ``ending`` is from :func:`kvar.report.page.students.study_ending`.
    """
    shown = [section(table.title, table.frame(), table.note) for table in tables]
    noise = [section("Noise at the start against gain", ranks_shown(ranks), RANKS_NOTE)] if len(ranks) else []
    estimators = section("Estimators", estimators_shown(frame), ESTIMATORS_NOTE)
    write_page(
        path, title="Methods side by side, and the variance of their gradients", lead=lead, table=grid(counts),
        details=[[sentence] for sentence in verdict], explore=statistics if len(statistics) else None,
        figures={name: data_uri(figure, name) for name, figure in figures.items()}, notes=notes,
        opening=shown[:1], sections=[*noise, *shown[1:], estimators],
        provenance=provenance, **ending,
    )  # fmt: skip
