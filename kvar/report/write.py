"""The report: one HTML file that stands alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvar.plots.frame import check_frame
from kvar.report.embed import data_uri
from kvar.report.html_parts import figure_html, mapping_html, samples_html, statistics_html, verdict_html
from kvar.report.page import page
from kvar.report.sections import section
from kvar.report.verdict import verdict_paragraphs

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["write_report"]


def write_report(
    path: str | Path,
    frame: pd.DataFrame,
    *,
    figures: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    verdict: Sequence[str] | None = None,
    samples: Sequence[Mapping[str, Any]] | None = None,
    provenance: Mapping[str, Any] | None = None,
    tables: Mapping[str, pd.DataFrame] | None = None,
    further: Sequence[str] = (),
    notes: Sequence[str] = (),
    title: str = "K-step returns: variance and bias of the gradient",
    group: str = "all",
    step: int | str = "last",
) -> Path:
    """Write the report of a study: verdict, figures, table, samples, settings, provenance, all in one file.

    Args:
        path: the HTML file; its folder is made, and the file appears whole or not at all.
        frame: a statistics frame (``kvar.plots.COLUMNS``).
        figures: title -> matplotlib figure or axes, or the path of a PNG, SVG or JPEG file.
        config: settings, nested or flat.
        verdict: sentences in place of those that :func:`kvar.report.verdict` computes from the frame.
        samples: prompts and responses to show, one mapping each; shown as text whatever they contain.
        provenance: where the numbers come from: versions, command, seed, date.
        tables: heading -> table, shown between figures and statistics by :func:`kvar.report.sections.section`.
        further: ready-made sections, as :func:`kvar.report.sections.section` makes them, shown after the tables.
        notes: sentences to stand before the verdict, on what to beware of.
        title: heading of the page.
        group: parameter group.
        step: training step, or "last".

    Returns:
        The path.

    Raises:
        ValueError: the frame is empty or lacks a column or what a verdict needs, or a figure's file is missing; no file
            is written then.
    """
    check_frame(frame)
    paragraphs = verdict_paragraphs(frame, group=group, step=step) if verdict is None else [list(verdict)]
    paragraphs = [*([list(notes)] if notes else []), *paragraphs]
    sections = [f'<section class="verdict" aria-label="Verdict">\n{verdict_html(paragraphs)}\n</section>']
    if figures:
        drawn = "\n".join(figure_html(name, data_uri(figure, name)) for name, figure in figures.items())
        sections.append(f'<section>\n<h2>Figures</h2>\n<div class="figures">\n{drawn}\n</div>\n</section>')
    sections += [section(name, own) for name, own in (tables or {}).items() if len(own)]
    sections += further
    table = statistics_html(frame, group=group, step=step)
    sections.append(f"<section>\n<h2>Statistics</h2>\n{table}\n</section>")
    if samples:
        sections.append(f"<section>\n<h2>Samples</h2>\n{samples_html(samples)}\n</section>")
    for heading, values in (("Configuration", config), ("Provenance", provenance)):
        if values:
            sections.append(f"<section>\n<h2>{heading}</h2>\n{mapping_html(values)}\n</section>")
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    partial.write_text(page(title, sections), encoding="utf-8")
    os.replace(partial, target)
    return target
