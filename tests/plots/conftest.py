"""Fixtures of the figures' tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from statistics_frames import study


@pytest.fixture
def frame() -> pd.DataFrame:
    """Three students, five kernels, three steps."""
    return study()
