"""The report: one HTML file that stands alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvar.analysis.frames.statistics_frame import check_frame, students
from kvar.report.page.document import page
from kvar.report.page.embed import data_uri
from kvar.report.page.interactive import interactive_parts
from kvar.report.page.parts import figure_html, mapping_html, samples_html, statistics_html, verdict_html
from kvar.report.page.sections import MOST_ROWS, section, table_html
from kvar.report.page.settings import settings_html
from kvar.report.tables.by_run import verdict_table
from kvar.report.words.by_run import verdict_paragraphs

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["NO_PROBES", "write_report"]

NO_PROBES = (
    "No run here holds a gradient probe, so nothing can be said about variance, bias or the best K; train with "
    "probe_every above 0, or run kvar probe on a finished run, to measure them."
)


def write_report(
    path: str | Path,
    frame: pd.DataFrame | None,
    *,
    explore: pd.DataFrame | None = None,
    figures: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    configs: Mapping[str, Mapping[str, Any]] | None = None,
    verdict: Sequence[str] | None = None,
    samples: Sequence[Mapping[str, Any]] | None = None,
    responses: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    tables: Mapping[str, pd.DataFrame] | None = None,
    further: Sequence[str] = (),
    notes: Sequence[str] = (),
    title: str = "K-step returns: variance and bias of the gradient",
    group: str = "all",
    step: int | str = "last",
) -> Path:
    """Write the report of a study: verdict, plots, tables, responses, settings, provenance, all in one file.

    Args:
        path: the HTML file; its folder is made, and the file appears whole or not at all.
        frame: a statistics frame (``kvar.plots.COLUMNS``) of one run a student; None where nothing was probed, which
            the page then says.
        explore: what the interactive plot shows: a statistics frame with the columns task, method and seed, whose
            students may have many runs; by default the frame.
        figures: title -> matplotlib figure or axes, or the path of a PNG, SVG or JPEG file.
        config: settings, nested or flat.
        configs: run -> its settings: the fields that differ are shown, the others folded.
        verdict: sentences in place of those that :func:`kvar.report.verdict` computes from the frame.
        samples: prompts and responses to show, one mapping each; shown as text whatever they contain.
        responses: sampled responses with their gaps, from ``kvar.report.page.responses.responses_data``.
        provenance: where the numbers come from: versions, command, seed, date.
        tables: heading -> table, shown between figures and statistics by :func:`kvar.report.page.sections.section`.
        further: ready-made sections, as :func:`kvar.report.page.sections.section` makes them, shown after the tables.
        notes: sentences to stand before the verdict, on what to beware of.
        title: heading of the page.
        group: parameter group of verdict and table of statistics.
        step: training step of these, or "last".

    Returns:
        The path.

    Raises:
        ValueError: the frame is empty or lacks a column or what a verdict needs, or a figure's file is missing; no file
            is written then.
    """
    if verdict is not None:
        paragraphs = [list(verdict)]
    elif frame is None:
        paragraphs = [[NO_PROBES]]
    else:
        paragraphs = verdict_paragraphs(frame, group=group, step=step)
    answer = None if frame is None else verdict_table(frame, group=group, step=step)
    sections = [_verdict_section(paragraphs, notes, answer)]
    drawn, answering, scripts = interactive_parts(frame if explore is None else explore, responses)
    sections += drawn
    if figures:
        shown = "\n".join(figure_html(name, data_uri(figure, name)) for name, figure in figures.items())
        sections.append(f'<section>\n<h2>Figures</h2>\n<div class="figures">\n{shown}\n</div>\n</section>')
    sections += [section(name, table) for name, table in (tables or {}).items() if len(table)]
    sections += further
    if frame is not None:
        sections.append(_statistics_section(frame, group, step))
    sections += answering
    if samples:
        sections.append(f"<section>\n<h2>Samples</h2>\n{samples_html(samples)}\n</section>")
    if configs:
        sections.append(settings_html(configs))
    if config:
        sections.append(f"<section>\n<h2>Configuration</h2>\n{mapping_html(config)}\n</section>")
    if provenance:
        sections.append(_provenance_section(provenance))
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    partial.write_text(page(title, sections, scripts), encoding="utf-8")
    os.replace(partial, target)
    return target


def _verdict_section(paragraphs: Sequence[Sequence[str]], notes: Sequence[str], table: pd.DataFrame | None) -> str:
    """What to beware of, the answer and its table; the numbers in words are folded below."""
    parts = [verdict_html([notes])] if notes else []
    parts.append(verdict_html(paragraphs[:1]))
    if table is not None and len(table):
        parts.append(table_html(table))
    if paragraphs[1:]:
        parts.append(f"<details><summary>In words</summary>\n{verdict_html(paragraphs[1:])}\n</details>")
    return '<section class="verdict" aria-label="Verdict">\n' + "\n".join(parts) + "\n</section>"


def _provenance_section(values: Mapping[str, Any]) -> str:
    """Where the numbers come from; lists of many are folded."""
    plain = {name: value for name, value in values.items() if not isinstance(value, Mapping)}
    folded = "\n".join(
        f"<details><summary>{escape(name)} ({len(value)})</summary>\n{mapping_html(value)}\n</details>"
        for name, value in values.items()
        if isinstance(value, Mapping)
    )
    return f"<section>\n<h2>Provenance</h2>\n{mapping_html(plain) if plain else ''}\n{folded}\n</section>"


def _statistics_section(frame: pd.DataFrame, group: str, step: int | str) -> str:
    """The table of statistics, of as many students as a page can hold."""
    check_frame(frame)
    names = students(frame)
    most = max(1, MOST_ROWS // max(1, frame["kernel"].nunique()))
    left = f"<p>The {most} smallest of {len(names)} students.</p>\n" if len(names) > most else ""
    table = statistics_html(frame[frame["student"].isin(names[:most])], group=group, step=step)
    return f"<section>\n<h2>Statistics</h2>\n{left}{table}\n</section>"
