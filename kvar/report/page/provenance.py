"""The provenance of a report's numbers: versions, and every run with its folder and probes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kvar._version import __version__
from kvar.records import Run
from kvar.records.versions import versions

__all__ = ["provenance_of", "written_with"]


def provenance_of(runs: Sequence[Run]) -> dict[str, Any]:
    """Versions that wrote and read the runs, and one line per run."""
    return {
        "written with": written_with({"kvar": run.version, **run.versions} for run in runs),
        "read with": written_with([{"kvar": __version__, **versions()}]),
        "runs": {str(run.path): _line(run) for run in runs},
    }


def written_with(every: Iterable[Mapping[str, str]]) -> str:
    """All versions of each name, from one mapping of names to versions per run.

    >>> written_with([{"kvar": "0.1.0", "torch": "2.13.0"}, {"kvar": "0.1.0", "torch": "2.12.0"}])
    'kvar 0.1.0, torch 2.12.0 and 2.13.0'
    """
    by_name: dict[str, set[str]] = {}
    for run in every:
        for name, version in run.items():
            by_name.setdefault(name, set()).add(version)
    return ", ".join(f"{name} {' and '.join(sorted(each))}" for name, each in by_name.items())


def _line(run: Run) -> str:
    steps = sorted({step for _, step in run.measurements()})
    return f"begun {run.created}, " + (f"probes at steps {', '.join(map(str, steps))}" if steps else "no probe")
