"""The end of a study's page: sampled responses, evaluated texts and the settings of every finished cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kvar.records import load
from kvar.report.page.evaluations import samples_of
from kvar.report.page.responses import responses_data
from kvar.report.page.settings import settings_of
from kvar.results.places import Place
from kvar.results.study_cells import StudyCell

__all__ = ["study_ending"]


def study_ending(cells: Sequence[StudyCell]) -> dict[str, Any]:
    """``responses``, ``samples`` and ``settings`` of :func:`kvar.report.page.document.write_page`."""
    done = [cell for cell in cells if cell.finished]
    if not done:
        return {}
    runs = [load(cell.path) for cell in done]
    places = [Place(cell.task, cell.student, cell.method, str(cell.seed)) for cell in done]
    configs = {str(place): run.config for run, place in zip(runs, places, strict=True)}
    return {
        "responses": responses_data(runs, places),
        "samples": samples_of(runs, places),
        "settings": settings_of(configs),
    }
