"""``import kvar`` stays cheap: beyond torch it imports nothing but the standard library, and so do the lower rooms."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

ROOMS = ("kvar", "kvar.returns", "kvar.rollouts", "kvar.gradients", "kvar.estimators")
HEAVY = ("transformers", "datasets", "pandas", "pyarrow", "matplotlib", "scipy", "sacrebleu", "sklearn", "peft", "trl")
ASKED = f"""
import json, sys
import torch
before = set(sys.modules)
import {", ".join(ROOMS)}
rooms = sorted(set(sys.modules) - before)
kvar.load
print(json.dumps({{"rooms": rooms, "load": sorted(set(sys.modules) - before), "origin": kvar.load.__module__}}))
"""


@pytest.fixture(scope="module")
def imported() -> dict[str, Any]:
    """Modules that a new process has beyond torch's: after importing the rooms, and after asking for ``kvar.load``."""
    done = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def test_the_rooms_import_nothing_heavy(imported: dict[str, Any]) -> None:
    packages = {name.split(".")[0] for name in imported["rooms"]}
    assert "kvar" in packages
    assert not packages & set(HEAVY)
    assert packages - {"kvar", "torch", "numpy"} <= sys.stdlib_module_names


def test_load_imports_what_it_needs_when_it_is_asked_for(imported: dict[str, Any]) -> None:
    assert imported["origin"] == "kvar.front.load"
    assert "pyarrow" in imported["load"] and "pandas" not in imported["load"]
    assert "transformers" not in imported["load"]


def test_names_that_are_and_names_that_are_not() -> None:
    import kvar

    assert "measure" in dir(kvar)
    with pytest.raises(AttributeError, match="module 'kvar' has no attribute 'lod'"):
        _ = kvar.lod
    assert kvar.__version__
