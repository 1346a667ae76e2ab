"""The development data, where it is at hand: KVAR_DATA, or a folder beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("KVAR_DATA", Path(__file__).parents[2] / "shared" / "data"))
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="the development data is not here; set KVAR_DATA to its folder"
)
