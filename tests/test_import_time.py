"""``import kvar`` is cheap: at most 0.3 s beyond torch, and nothing heavy before it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

ROOMS = ("kvar", "kvar.returns", "kvar.rollouts", "kvar.gradients")
HEAVY = ("transformers", "datasets", "pandas", "pyarrow", "matplotlib", "scipy", "sacrebleu")
LIMIT_SECONDS = 0.3


def python(script: str) -> str:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()


def test_seconds_beyond_torch():
    script = (
        f"import torch, time; start = time.perf_counter(); import {', '.join(ROOMS)}; "
        "print(time.perf_counter() - start)"
    )
    seconds = min(float(python(script)) for _ in range(3))
    assert seconds <= LIMIT_SECONDS


def test_nothing_heavy_is_imported():
    script = (
        f"import torch, sys; before = set(sys.modules); import {', '.join(ROOMS)}; print(*(set(sys.modules) - before))"
    )
    loaded = {name.split(".")[0] for name in python(script).split()}
    assert "kvar" in loaded
    assert not loaded & set(HEAVY)


def test_load_is_there_when_asked_for():
    script = (
        "import kvar, sys; early = 'pandas' in sys.modules; print(kvar.load.__module__, early, 'pandas' in sys.modules,"
        "'transformers' in sys.modules, 'measure' in dir(kvar))"
    )
    assert python(script) == "kvar.front.load False True False True"


def test_other_names_are_not():
    import kvar

    with pytest.raises(AttributeError, match="module 'kvar' has no attribute 'lod'"):
        _ = kvar.lod
    assert kvar.__version__
