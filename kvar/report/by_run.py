"""The report of runs: statistics, figures, table and one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvar.analysis.frames.recorded import by_position_of
from kvar.analysis.frames.toward_over_training import toward_over_training
from kvar.analysis.return_statistics import gap_autocorrelation
from kvar.records import Run
from kvar.records.place import check_folder_place
from kvar.report.figures.by_run import draw_figures
from kvar.report.page.by_run import NO_PROBES, write_report
from kvar.report.page.evaluations import samples_of, scores_frame
from kvar.report.page.provenance import provenance_of
from kvar.report.page.responses import responses_data, spread
from kvar.report.tables.by_run import calibration_table, choice_table
from kvar.report.tables.choices import choice_lines, choices_table
from kvar.report.tables.leads import leads_table
from kvar.report.tables.terminal import render_table
from kvar.report.words.by_run import verdict_paragraphs
from kvar.results.places import at_places, places_of
from kvar.results.run_folders import find_runs, student_names, usable_statistics
from kvar.results.same_run import differences

if TYPE_CHECKING:
    import pandas as pd

CHOSEN = "Estimators chosen in training"
MOST_DRAWN = 12
"""Runs in the figures, spread evenly over all; the interactive plot has all."""

__all__ = ["MOST_DRAWN", "left_out_notes", "report_runs"]


def report_runs(
    paths: Sequence[str | Path],
    output: str | Path,
    *,
    reference: str | None = None,
    batch: int = 64,
    step: int | str = "last",
) -> str:
    """Write ``report.html``, ``statistics.parquet``, ``table.txt`` and ``figures/`` for some runs.

    Of runs without gradient probes, or whose probe is too small or lacks the reference, the report has only scores and
    samples; where no run has a probe, only page and table are written. Damaged records are skipped. Page and table name
    each such run with the reason. The page also has theory over measurement for every step, and the best K for each
    step size, as ``kvar choose-k``.

    Args:
        paths: run folders, or folders above them.
        output: folder to write to.
        reference: estimator of the true gradient, see ``kvar.analysis.frames.recorded.statistics_of``.
        batch: B of theory.md (11').
        step: the training step that table, verdict and figures show, or "last"; statistics.parquet holds all.

    Returns:
        The table, for the terminal.

    Raises:
        ValueError: no runs, a reference that is not measured, or no run with usable records.
    """
    check_folder_place(output, "output")
    left_out: dict[str, str] = {}
    runs, bare = find_runs(paths, left_out)
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    every = [*runs, *bare]
    everywhere = places_of(every)
    names, places = student_names(runs), everywhere[: len(runs)]
    scores = scores_frame(every, everywhere)
    chosen = choices_table(every, [str(place) for place in everywhere])
    page: dict[str, Any] = {
        "configs": {str(place): run.config for run, place in zip(every, everywhere, strict=True)},
        "samples": samples_of(every, everywhere),
        "provenance": provenance_of(every),
    }
    if not runs:
        notes = left_out_notes(left_out)
        table = "\n".join([*notes, NO_PROBES, *([scores.to_string(index=False)] if len(scores) else [])])
        (output / "table.txt").write_text(table + "\n", encoding="utf-8")
        write_report(
            output / "report.html",
            None,
            tables={"Scores": scores, CHOSEN: chosen},
            title="Distillation runs",
            notes=notes,
            **page,
        )
        return table
    options: dict[str, Any] = {"reference": reference, "batch": batch, "theory": True}
    frame, kept = usable_statistics(runs, names, left_out, **options)
    runs, names, places = [runs[i] for i in kept], [names[i] for i in kept], [places[i] for i in kept]
    frame.to_parquet(output / "statistics.parquet", index=False)
    few = [runs[i] for i in spread(len(runs), MOST_DRAWN)]
    few_names = [names[i] for i in spread(len(runs), MOST_DRAWN)]
    drawn = frame[frame["student"].isin(few_names)]
    if step != "last" and step not in set(frame["step"]):
        probed = ", ".join(map(str, sorted(set(frame["step"]))))
        raise ValueError(f"no run was probed at step {step}; choose of {probed}, or last.")
    leads = _leads(few, few_names, batch)
    if len(leads):
        leads.to_parquet(output / "toward.parquet", index=False)
    gaps, positions = _gaps(few, few_names, step), _positions(few, few_names, step)
    figures, missing = draw_figures(drawn, output / "figures", step, gaps, positions, leads)
    notes = [
        f"Beware: these runs differ in {field} ({', '.join(map(str, values))}), so do not compare their students."
        for field, values in differences(runs).items()
    ]
    if len(few) < len(runs):
        notes.append(f"Figures and the table of which K for which step show {len(few)} of {len(runs)} probed runs.")
    notes += left_out_notes(left_out)
    if bare:
        notes.append(f"{len(bare)} of {len(every)} runs hold no gradient probe: of these there are scores only.")
    lead = verdict_paragraphs(frame, step=step)[0]
    pointing = leads_table(leads, step=step)
    shown = [f"Where a step of {batch} leads:", pointing.to_string(index=False)] if len(pointing) else []
    shown += [f"{CHOSEN}:", *choice_lines(chosen)] if len(chosen) else []
    table = "\n".join([*notes, render_table(frame, step=step, batch=batch), *lead, *shown])
    (output / "table.txt").write_text(table + "\n", encoding="utf-8")
    write_report(
        output / "report.html",
        frame,
        explore=at_places(frame, names, places),
        step=step,
        figures=figures,
        responses=responses_data(runs, places),
        tables={
            "Scores": scores,
            CHOSEN: chosen,
            f"Where a step of {batch} leads": leads_table(leads),
            "Theory over measurement": calibration_table(frame),
            "Which K for which step": choice_table(few, few_names, step=step, reference=reference),
        },
        notes=notes,
        **{**page, "provenance": page["provenance"] | ({"not drawn": missing} if missing else {})},
    )
    return table


def left_out_notes(left_out: Mapping[str, str]) -> list[str]:
    """A sentence for every run without statistics of variance and bias."""
    return [f"Left out, except for its scores: {run}: {' '.join(why.split())}" for run, why in left_out.items()]


def _leads(runs: Sequence[Run], names: Sequence[str], batch: int) -> pd.DataFrame:
    """Where a step leads at every probe of the runs that measured another target than J."""
    import pandas as pd

    frames = [pd.DataFrame()]
    for run, name in zip(runs, names, strict=True):
        table = toward_over_training(run, batch)
        if len(table) and set(table["target"]) != {"J"}:
            frames.append(table.assign(student=name, parameters=int(run.config["parameters"])))
    return pd.concat(frames, ignore_index=True)


def _gaps(runs: Sequence[Run], names: Sequence[str], step: int | str) -> pd.DataFrame:
    """Autocorrelation of gaps of every run, with its student and parameters; at all steps of a single run."""
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
