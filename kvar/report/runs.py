"""From run folders to a report: statistics, figures, table and one HTML file."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvar.analysis.return_statistics import gap_autocorrelation
from kvar.analysis.runs import by_position_of, probes_of, statistics_of
from kvar.records import Run, load
from kvar.report.compatible import differences
from kvar.report.figures import draw_figures
from kvar.report.table import render_table
from kvar.report.tables import calibration_table, choice_table
from kvar.report.write import write_report

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["find_runs", "report_runs", "student_names", "study_statistics"]


def find_runs(paths: Iterable[str | Path]) -> list[Run]:
    """The runs with probes in or below some folders, in the order of their paths.

    Raises:
        ValueError: a folder that does not exist, or no run with a probe anywhere.
    """
    runs: list[Run] = []
    bare = 0
    for path in map(Path, paths):
        if not path.is_dir():
            raise ValueError(f"{path} is not a folder; name run folders, or folders above them.")
        inside = sorted({p.parent for p in path.rglob("config.json") if (p.parent / "gradients").is_dir()})
        bare += sum(1 for p in path.rglob("metrics") if p.is_dir()) - len(inside)
        runs += [run for run in map(load, inside) if run.measurements()]
    if not runs:
        raise ValueError(
            f"no run with a gradient probe in {', '.join(map(str, paths))}"
            + (f" ({bare} runs without one)" if bare > 0 else "")
            + "; train with probe_every above 0."
        )
    return runs


def student_names(runs: Sequence[Run]) -> list[str]:
    """A name a run: as many of STUDENT, METHOD and seed-N, its last folders, as tell it from the others."""
    parts = []
    for run in runs:
        own = run.path.resolve().parts
        parts.append(own[-3:] if re.fullmatch(r"seed-\d+", own[-1]) else own[-2:])
    names = [path[0] for path in parts]
    for depth in (2, 3):
        names = [
            name if names.count(name) == 1 else "/".join(path[:depth]) for name, path in zip(names, parts, strict=True)
        ]
    return names


def study_statistics(runs: Sequence[Run], **options: Any) -> pd.DataFrame:
    """The statistics frame of several runs, students named after their folders.

    Args:
        runs: with probes; a run in OUTPUT/student/stage is called "student", or "student/stage" where a student has
            several stages with probes.
        options: passed to ``kvar.analysis.runs.statistics_of``.
    """
    import pandas as pd

    names = student_names(runs)
    return pd.concat(
        [statistics_of(run, name, **options) for run, name in zip(runs, names, strict=True)], ignore_index=True
    )


def report_runs(
    paths: Sequence[str | Path],
    output: str | Path,
    *,
    reference: str | None = None,
    batch: int = 64,
    step: int | str = "last",
) -> str:
    """Write ``report.html``, ``statistics.parquet``, ``table.txt`` and ``figures/`` for the probes of some runs.

    The page also holds theory over measurement for every step, and which K serves which step, as ``kvar choose-k``.

    Args:
        paths: run folders, or folders above them.
        output: where to write.
        reference: estimator that stands for the true gradient, see ``kvar.analysis.runs.statistics_of``.
        batch: B of theory.md (11').
        step: the training step that table, verdict and figures show, or "last"; statistics.parquet holds all.

    Returns:
        The table, for the terminal.

    Raises:
        ValueError: no runs with probes, or a reference that was not measured.
    """
    runs = find_runs(paths)
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    frame = study_statistics(runs, reference=reference, batch=batch, theory=True)
    frame.to_parquet(output / "statistics.parquet", index=False)
    names = student_names(runs)
    gaps, positions = _gaps(runs, names, step), _positions(runs, names, step)
    figures, missing = draw_figures(frame, output / "figures", step, gaps, positions)
    notes = [
        f"Beware: these runs differ in {field} ({', '.join(map(str, values))}), so do not compare their students."
        for field, values in differences(runs).items()
    ]
    table = "\n".join([*notes, render_table(frame, step=step)])
    (output / "table.txt").write_text(table + "\n", encoding="utf-8")
    tables = {
        "Theory over measurement": calibration_table(frame),
        "Which K for which step": choice_table(runs, names, step=step, reference=reference),
    }
    config = {f"{run.path.parent.name}/{run.path.name}": dict(run.config) for run in runs}
    write_report(
        output / "report.html",
        frame,
        step=step,
        figures=figures,
        config=config,
        tables=tables,
        notes=notes,
        samples=[sample for run in runs for sample in _samples(run)],
        provenance={**_provenance(runs), **({"not drawn": missing} if missing else {})},
    )
    return table


def _gaps(runs: Sequence[Run], names: Sequence[str], step: int | str) -> pd.DataFrame:
    """Autocorrelation of gaps of every run, with its student and parameters; at all steps of a lone run."""
    import pandas as pd

    frames = [pd.DataFrame()]
    for run, name in zip(runs, names, strict=True):
        steps = sorted({at for _, at in run.measurements("trajectories")})
        wanted = steps if len(runs) == 1 else [at for at in steps if at == (steps[-1] if step == "last" else step)]
        if wanted:
            table = gap_autocorrelation(run, lags=12, steps=wanted)
            frames.append(table.assign(student=name, parameters=int(run.config["parameters"])))
    return pd.concat(frames, ignore_index=True)


def _positions(runs: Sequence[Run], names: Sequence[str], step: int | str) -> pd.DataFrame:
    import pandas as pd

    steps = None if step == "last" else [int(step)]
    return pd.concat([by_position_of(run, name, steps=steps) for run, name in zip(runs, names, strict=True)])


def _samples(run: Run, count: int = 5) -> list[dict[str, Any]]:
    path = run.path / "evaluation.json"
    if not path.exists():
        return []
    rows = json.loads(path.read_text(encoding="utf-8"))["samples"][:count]
    return [{"student": run.path.parent.name, **row} for row in rows]


def _provenance(runs: Sequence[Run]) -> dict[str, Any]:
    import torch
    import transformers

    return {
        "kvar": runs[0].version,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "runs": {
            f"{run.path.parent.name}/{run.path.name}": f"begun {run.created}, probes {probes_of(run)}" for run in runs
        },
    }
