"""From run folders to a report: statistics, figures, table and one HTML file."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvar.analysis.runs import probes_of, statistics_of
from kvar.records import Run, load
from kvar.report.table import render_table
from kvar.report.write import write_report

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["draw_figures", "find_runs", "report_runs", "study_statistics"]


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


def study_statistics(runs: Sequence[Run], **options: Any) -> pd.DataFrame:
    """The statistics frame of several runs, students named after their folders.

    Args:
        runs: with probes; a run in OUTPUT/student/stage is called "student", or "student/stage" where a student has
            several stages with probes.
        options: passed to ``kvar.analysis.runs.statistics_of``.
    """
    import pandas as pd

    parents = [run.path.parent.name for run in runs]
    names = [
        parent if parents.count(parent) == 1 else f"{parent}/{run.path.name}"
        for parent, run in zip(parents, runs, strict=True)
    ]
    return pd.concat(
        [statistics_of(run, name, **options) for run, name in zip(runs, names, strict=True)], ignore_index=True
    )


def draw_figures(frame: pd.DataFrame, folder: Path, step: int | str = "last") -> tuple[dict[str, Path], dict[str, str]]:
    """Draw the standard figures of a statistics frame into ``folder`` as PNG and SVG.

    Args:
        frame: statistics.
        folder: made where missing.
        step: training step, or "last"; the figure over training shows all.

    Returns:
        title -> PNG of what was drawn, and title -> reason of what the frame does not hold (for instance an efficiency
        where |g*|^2 was not resolved for any student).
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from kvar import plots

    at = {"step": step}
    wanted: dict[str, tuple[str, Any, dict[str, Any]]] = {
        "Variance against K, with the T0 prediction": ("variance_against_k", plots.variance_against_k, at),
        "Bias against variance": ("bias_against_variance", plots.bias_against_variance, at),
        "Efficiency against K": ("efficiency_against_k", plots.efficiency_against_k, at),
        "Signal-to-noise ratio against K": ("snr_against_k", plots.snr_against_k, at),
        "Within and between prompts": ("within_between_shares", plots.within_between_shares, at),
        "Variance against size": ("variance_against_size", plots.variance_against_size, at),
    }
    if frame["step"].nunique() > 1:
        ends = frame.dropna(subset="k").sort_values("k", kind="stable")["kernel"].unique()[[0, -1]].tolist()
        wanted["Variance over training"] = ("variance_over_training", plots.variance_over_training, {"kernels": ends})
    folder.mkdir(parents=True, exist_ok=True)
    drawn: dict[str, Path] = {}
    missing: dict[str, str] = {}
    for title, (name, draw, options) in wanted.items():
        try:
            axes = draw(frame, **options)
        except ValueError as error:
            missing[title] = str(error)
            continue
        drawn[title] = plots.save(axes, folder / name)[0]
        plt.close(axes.get_figure(root=True))
    return drawn, missing


def report_runs(
    paths: Sequence[str | Path],
    output: str | Path,
    *,
    reference: str | None = None,
    batch: int = 64,
    step: int | str = "last",
) -> str:
    """Write ``report.html``, ``statistics.parquet``, ``table.txt`` and ``figures/`` for the probes of some runs.

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
    frame = study_statistics(runs, reference=reference, batch=batch)
    frame.to_parquet(output / "statistics.parquet", index=False)
    figures, missing = draw_figures(frame, output / "figures", step)
    table = render_table(frame, step=step)
    (output / "table.txt").write_text(table + "\n", encoding="utf-8")
    config = {f"{run.path.parent.name}/{run.path.name}": dict(run.config) for run in runs}
    write_report(
        output / "report.html",
        frame,
        step=step,
        figures=figures,
        config=config,
        samples=[sample for run in runs for sample in _samples(run)],
        provenance={**_provenance(runs), **({"not drawn": missing} if missing else {})},
    )
    return table


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
