"""The end of a study's page: sampled responses, evaluated texts and the settings of every finished cell."""

from __future__ import annotations

from collections.abc import Sequence

from kvar.records import load
from kvar.report.page.evaluations import samples_of
from kvar.report.page.interactive import interactive_parts
from kvar.report.page.parts import samples_html
from kvar.report.page.responses import responses_data
from kvar.report.page.settings import settings_html
from kvar.results.places import Place
from kvar.results.study_cells import StudyCell

__all__ = ["study_ending"]


def study_ending(cells: Sequence[StudyCell]) -> tuple[list[str], list[str]]:
    """Sections that show what the cells' students write and how they were made.

    Args:
        cells: of a study; those that are not finished are left out.

    Returns:
        Sections, and the scripts that they need, for :func:`kvar.report.page.document.page`.
    """
    done = [cell for cell in cells if cell.finished]
    if not done:
        return [], []
    runs = [load(cell.path) for cell in done]
    places = [Place(cell.task, cell.student, cell.method, str(cell.seed)) for cell in done]
    _, sections, scripts = interactive_parts(None, responses_data(runs, places))
    samples = samples_of(runs, places)
    if samples:
        sections.append(f"<section>\n<h2>Samples</h2>\n{samples_html(samples)}\n</section>")
    sections.append(settings_html({str(place): run.config for run, place in zip(runs, places, strict=True)}))
    return sections, scripts
