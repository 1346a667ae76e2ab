"""The page of a report of runs, one self-contained HTML file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from kvar.analysis.frames.statistics_frame import at_step, check_frame, students
from kvar.analysis.statistic_table import MEANINGS
from kvar.intervals import Interval
from kvar.plots.parts.style import student_series
from kvar.report.page.document import write_page
from kvar.report.page.embed import data_uri
from kvar.report.page.sections import MOST_ROWS, Keyed, grid, section
from kvar.report.page.settings import flatten, settings_of
from kvar.report.tables.by_run import verdict_table
from kvar.report.words.by_run import verdict_paragraphs
from kvar.results.by_kernel import cells

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
    title: str = "Policy-gradient estimators: variance and bias",
    group: str = "all",
    step: int | str = "last",
) -> Path:
    """Write the report of a study: verdict, plots, tables, responses, settings, provenance, all in one file.

    Args:
        path: the HTML file, written all or nothing; its folder is created.
        frame: a statistics frame (``kvar.plots.COLUMNS``) with one run per student; None without probes.
        explore: statistics frame of the interactive plot, with the columns task, method and seed, whose students may
            have many runs; by default ``frame``.
        figures: title -> matplotlib figure or axes, or the path of a PNG, SVG or JPEG file.
        config: settings, nested or flat.
        configs: run -> its settings: fields that differ are shown, the others folded.
        verdict: sentences in place of those computed from the frame; the first is shown, the others folded.
        samples: prompts and responses, one mapping each, shown as text.
        responses: sampled responses with their gaps, from ``kvar.report.page.responses.responses_data``.
        provenance: versions, command, seed, date.
        tables: heading -> table, shown between figures and statistics by :func:`kvar.report.page.sections.section`.
        further: sections from :func:`kvar.report.page.sections.section`, shown after the tables.
        notes: warnings, shown before the verdict.
        title: heading of the page.
        group: parameter group of verdict and statistics.
        step: training step of these, or "last".

    Returns:
        The path.

    Raises:
        ValueError: the frame is empty or lacks a column, or a figure's file is missing; no file is written.
    """
    if verdict is not None:
        paragraphs = [list(verdict[:1]), list(verdict[1:])]
    else:
        paragraphs = [[NO_PROBES]] if frame is None else verdict_paragraphs(frame, group=group, step=step)
    table = None if frame is None else verdict_table(frame, group=group, step=step)
    sections = [section(name, rows) for name, rows in (tables or {}).items() if len(rows)]
    sections += map(Markup, further)
    if frame is not None:
        sections.append(_statistics(frame, group, step))
    return write_page(
        path, title=title, lead=" ".join(paragraphs[0]), details=[part for part in paragraphs[1:] if part],
        beware=notes, table=grid(table) if table is not None and len(table) else None,
        explore=frame if explore is None else explore,
        figures={name: data_uri(figure, name) for name, figure in (figures or {}).items()},
        sections=sections, responses=responses, samples=samples, provenance=provenance,
        settings=settings_of(configs) if configs else None, config=flatten(config) if config else None,
    )  # fmt: skip


def _statistics(frame: pd.DataFrame, group: str, step: int | str) -> Markup:
    """Every statistic of every student and kernel with its interval, for as many students as ``MOST_ROWS`` allows."""
    import pandas as pd

    check_frame(frame)
    names = students(frame)
    most = max(1, MOST_ROWS // max(1, frame["kernel"].nunique()))
    note = f"The {most} smallest of {len(names)} students." if len(names) > most else ""
    labels = {name: look.label for name, look in student_series(frame).items()}
    shown = at_step(frame[(frame["group"] == group) & frame["student"].isin(names[:most])], step)
    present = set(frame[frame["group"] == group]["statistic"])
    wanted = [name for name in MEANINGS if name in present] + sorted(present - set(MEANINGS))
    values = {name: cells(shown, name, group=group, step="all", only_k=False) for name in wanted}
    first = shown.sort_values(["parameters", "student", "k"], kind="stable").drop_duplicates(["student", "kernel"])
    missing = Interval(math.nan)
    rows = [
        {
            "student": Keyed(labels[student], names.index(student), head=True),
            "kernel": Keyed(kernel, 1e9 if math.isnan(k) else min(k, 1e6)),
            "step": at,
            "n": n,
            **{_words(name): values[name].get(student, {}).get(kernel, missing) for name in wanted},
        }
        for student, kernel, k, at, n in first[["student", "kernel", "k", "step", "n"]].to_numpy().tolist()
    ]
    titles = {"student": "name and parameters", "step": "training step", "n": "trajectories"}
    titles |= {_words(name): MEANINGS.get(name, "") for name in wanted}
    return section("Statistics", pd.DataFrame(rows), note, titles=titles)


def _words(statistic: str) -> str:
    return statistic.replace("_", " ")
