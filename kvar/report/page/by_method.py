"""What the report of a study writes: text, numbers and the page."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvar.intervals import number
from kvar.records.parts import replace_file
from kvar.report.page.document import page
from kvar.report.page.embed import data_uri
from kvar.report.page.interactive import interactive_parts
from kvar.report.page.parts import figure_html, mapping_html, verdict_html
from kvar.report.page.sections import section
from kvar.report.tables.by_method import StudyTable, estimators_shown, ranks_shown
from kvar.results.outcomes import StudyValues

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ESTIMATORS_NOTE", "RANKS_NOTE", "methods_text", "write_numbers", "write_page"]

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
    """The whole of ``methods.md``."""
    parts = ["# Methods\n", *(f"{said}\n" for said in verdict), *(table.text(full) for table in tables[:1])]
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
        replace_file(folder / f"{name}.parquet", whole)  # it may be all that is left of runs that are gone


def write_page(
    path: Path,
    *,
    verdict: Sequence[str],
    figures: Mapping[str, Path],
    tables: Sequence[StudyTable],
    frame: pd.DataFrame,
    ranks: pd.DataFrame,
    notes: Sequence[str],
    provenance: Mapping[str, Any],
    statistics: pd.DataFrame,
    ending: tuple[Sequence[str], Sequence[str]] = ((), ()),
) -> None:
    """The page: verdict, scores, the plot over ``statistics``, figures, correlations, tables, notes, provenance.

    Before the provenance stand the sections of ``ending``, which come with their scripts.
    """
    said = verdict_html([[sentence] for sentence in verdict])
    sections = [f'<section class="verdict" aria-label="Verdict">\n{said}\n</section>']
    sections += [section(table.title, table.frame(), table.note) for table in tables[:1]]
    plot, _, scripts = interactive_parts(statistics if len(statistics) else None, None)
    sections += plot
    if figures:
        drawn = "\n".join(figure_html(name, data_uri(figure, name)) for name, figure in figures.items())
        sections.append(f'<section>\n<h2>Figures</h2>\n<div class="figures">\n{drawn}\n</div>\n</section>')
    if len(ranks):
        sections.append(section("Noise at the start against gain", ranks_shown(ranks), RANKS_NOTE))
    sections += [section(table.title, table.frame(), table.note) for table in tables[1:]]
    sections.append(section("Estimators", estimators_shown(frame), ESTIMATORS_NOTE))
    listed = "\n".join(f"<li>{escape(note)}</li>" for note in notes)
    sections.append(f"<section>\n<h2>Notes</h2>\n<ul>\n{listed}\n</ul>\n</section>")
    sections += ending[0]
    sections.append(f"<section>\n<h2>Provenance</h2>\n{mapping_html(provenance)}\n</section>")
    partial = path.with_name(f".{path.name}.partial")
    title = "Methods side by side, and the variance of their gradients"
    partial.write_text(page(title, sections, [*scripts, *ending[1]]), encoding="utf-8")
    os.replace(partial, path)
