"""Fixtures of the report's tests."""

from __future__ import annotations

import pandas as pd
import pytest

from tests.plots.statistics_frames import study


@pytest.fixture
def frame() -> pd.DataFrame:
    """Three students, five kernels, three steps."""
    return study()


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without their figures, which take most of the time; test_report_runs and test_study_report draw them."""
    for name in ("by_run.draw_figures", "by_method.draw_study_figures"):
        monkeypatch.setattr(f"kvar.report.{name}", lambda *_, **__: ({}, {}))
