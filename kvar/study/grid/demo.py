"""``kvar demo``: the arithmetic study, end to end."""

from __future__ import annotations

import time
from pathlib import Path

from kvar.study.grid.run_grid import read_study, run_study

__all__ = ["run_demo"]


def run_demo(output: str | Path, *, config: str = "demo", overwrite: bool = False) -> int:
    """Distil the students of the shipped study ``demo``.

    A run that was killed is gone on with.

    Args:
        output: folder of the study's runs.
        config: the study.
        overwrite: run everything anew.

    Returns:
        The number of failed cells.

    Raises:
        ValueError: the folder holds runs of other settings.
    """
    start = time.perf_counter()
    failed = run_study(read_study(config), output, overwrite=overwrite)
    print(f"students distilled and probed in {time.perf_counter() - start:.0f} s", flush=True)
    return len(failed)
