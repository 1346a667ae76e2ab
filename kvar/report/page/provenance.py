"""Where a report's numbers come from: versions, and every run with its folder and its probes."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

from kvar import __version__
from kvar.records import Run

__all__ = ["provenance_of"]


def provenance_of(runs: Sequence[Run]) -> dict[str, Any]:
    """Versions that wrote and read the runs, and one line a run.

    Versions of torch and transformers are of the environment that made the report; runs do not record theirs.
    """
    import torch
    import transformers

    return {
        "runs written by kvar": ", ".join(sorted({run.version for run in runs})),
        "read with": f"kvar {__version__}, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"python {platform.python_version()}",
        "runs": {str(run.path): _line(run) for run in runs},
    }


def _line(run: Run) -> str:
    found = run.measurements()
    steps = sorted({step for _, step in found})
    return f"begun {run.created}, " + (f"probes at steps {', '.join(map(str, steps))}" if found else "no probe")
