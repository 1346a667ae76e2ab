"""Fixtures of the figures' tests."""

from __future__ import annotations

import pandas as pd
import pytest

from tests.plots.statistics_frames import study


@pytest.fixture
def frame() -> pd.DataFrame:
    """Three students, five kernels, three steps."""
    return study()
