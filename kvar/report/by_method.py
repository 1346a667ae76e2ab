"""The report of a study with several seeds: table of methods, figures and page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kvar._version import __version__
from kvar.records.load import read_config
from kvar.records.place import check_folder_place
from kvar.records.versions import versions
from kvar.report.figures.by_method import draw_study_figures
from kvar.report.page.by_method import methods_text, write_method_page, write_numbers
from kvar.report.page.provenance import written_with
from kvar.report.page.students import study_ending
from kvar.report.tables.by_method import method_tables
from kvar.report.words.by_method import method_counts, study_lead, study_verdict
from kvar.results.combined import combined_statistics
from kvar.results.compare import compare_methods, main_outcomes, methods_frame
from kvar.results.earlier import earlier_notes, read_earlier, with_earlier, write_made_with
from kvar.results.outcomes import StudyValues, read_study_runs
from kvar.results.ranks import rank_table
from kvar.results.study_cells import StudyCell, study_cells
from kvar.results.teachers import teacher_scores
from kvar.results.trained_estimators import estimator_table, estimator_values
from kvar.results.training_batch import training_batch

__all__ = ["report_study"]


def report_study(
    folder: str | Path,
    output: str | Path,
    *,
    reference: str | None = None,
    method: str = "llmr",
    start: str | None = None,
    batch: int | None = None,
    teachers: Mapping[str, str | Path] | None = None,
    earlier: str | Path | None = None,
    say: Callable[[str], None] = lambda text: print(text, flush=True),
) -> str:
    """Write methods.md, methods.csv, the numbers behind them, figures and report.html for a study with several seeds.

    ``statistics.parquet``, ``outcomes.parquet`` and ``curves.parquet`` have one row per seed, from which everything
    else is computed; ``methods.csv`` has a row per (task, student, method), ``ranks.csv`` the rank correlations, and
    ``made-with.json`` what a later report with ``earlier`` needs.

    Args:
        folder: the study's, with its ``study.json``; cells that are not finished count as missing.
        output: folder to write to.
        reference: estimator of the true gradient, see ``kvar.analysis.frames.recorded.statistics_of``.
        method: the method that others are compared with, seed by seed; by default llmr, or where the study has none,
            the first that samples.
        start: the method that others start from; by default the most frequent one.
        batch: B of theory.md (11'); by default the training batch of the methods.
        teachers: task -> file of its teacher's evaluation, see ``kvar.results.teachers.teacher_scores``.
        earlier: output of an earlier report of this study, for cells whose runs are missing; may be the folder
            ``output``.
        say: called with progress messages.

    Returns:
        The table of scores and the verdict, for the terminal.

    Raises:
        ValueError: no study, no finished cell, a method or reference that the study does not have, a teacher's
            evaluation on other examples, or an earlier report of another study or with another batch or reference.
    """
    check_folder_place(output, "output")
    cells = study_cells(folder)
    names = list(dict.fromkeys(cell.method for cell in cells))
    starts = [cell.start for cell in cells if cell.start]
    first = start or (max(set(starts), key=starts.count) if starts else names[0])
    for what, name in (("method", method), ("start", first)):
        if name not in names and (what == "start" or method != "llmr"):
            raise ValueError(f"{what} {name!r} is not in this study; its methods are {', '.join(names)}.")
    before = read_earlier(earlier, cells) if earlier is not None else None
    scores, sources = teacher_scores(folder, cells, teachers, before)
    done = [cell for cell in cells if cell.finished]
    b = batch or (before.batch if before and not done else training_batch(cells))
    values = read_study_runs(cells, batch=b, reference=reference, say=say) if done or not before else None
    values = with_earlier(values, before, batch=b, reference=reference) if before else values
    assert values is not None
    if method not in names:
        sampling = values.cells[values.cells["estimator"].notna()]["method"]
        method = str(sampling.iloc[0]) if len(sampling) else names[-1]
    target = Path(output)
    target.mkdir(parents=True, exist_ok=True)
    metrics = main_outcomes(values.outcomes)
    compared = compare_methods(values.outcomes, references=dict.fromkeys((method, first)))
    estimators = estimator_table(values.cells, values.statistics)
    at_start = estimator_values(values.cells, values.statistics)
    ranks = rank_table(values.outcomes, at_start, metrics)
    frame = methods_frame(values.cells, compared, estimators)
    combined = combined_statistics(values.statistics, b) if len(values.statistics) else values.statistics
    say("drawing")
    drawn, missing = draw_study_figures(
        values, combined, at_start, metrics, target / "figures", start=first, reference=method
    )
    tables = method_tables(values.cells, values.outcomes, compared, metrics, scores, reference=method, start=first)
    verdict = study_verdict(values.cells, values.outcomes, compared, ranks, metrics, reference=method, start=first)
    if before:
        sources += earlier_notes(values, cells, before.folder)
    notes = [*sources, *_notes(values, b), *(f"Not drawn: {title}: {why}" for title, why in missing.items())]
    write_numbers(target, values, frame, ranks)
    write_made_with(target, cells, batch=b, reference=reference, teachers=scores)
    full = int(values.cells["seed"].nunique())
    text = methods_text(verdict, tables, frame, ranks, notes, full)
    (target / "methods.md").write_text(text, encoding="utf-8")
    write_method_page(
        target / "report.html",
        lead=study_lead(values.outcomes, metrics),
        counts=method_counts(compared, values.outcomes, metrics, list(dict.fromkeys((first, method)))),
        verdict=verdict, figures=drawn, tables=tables, frame=frame, ranks=ranks, notes=notes,
        provenance=_provenance(cells), statistics=values.statistics, ending=study_ending(cells),
    )  # fmt: skip
    return "\n\n".join([*(table.text(full) for table in tables[:1]), *verdict, f"written: {target}"])


def _notes(values: StudyValues, batch: int) -> list[str]:
    """Notes on the batch of the numbers and on missing cells and probes."""
    cells = values.cells
    notes = [f"Efficiency and squared error are for steps of {batch} trajectories of as many prompts, (11') and (10)."]
    notes += [f"Probes left out: {folder}: {' '.join(why.split())}" for folder, why in values.left_out.items()]
    open_ = cells[~cells["finished"]]
    if len(open_):
        names = [
            "/".join(part for part in (row["task"], row["student"], row["method"], f"seed-{row['seed']}") if part)
            for row in open_.to_dict("records")
        ]
        shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
        notes.append(f"{len(names)} of {len(cells)} cells are not finished (failed, running or waiting): {shown}.")
    done = cells[cells["finished"]]
    unprobed = done[done["estimator"].notna() & ~done["probed"].astype(bool)]
    if len(unprobed):
        pairs = unprobed.drop_duplicates("method")
        listed = ", ".join(f"{row.method} ({row.estimator})" for row in pairs.itertuples())
        notes.append(f"Estimators of these methods that their own probe at the end did not measure: {listed}.")
    jless = done[~done["method"].isin(values.outcomes[values.outcomes["outcome"] == "total_gap"]["method"])]
    if len(jless):
        listed = ", ".join(dict.fromkeys(jless["method"]))
        notes.append(
            f"No probe at their end, so no J: {listed}; kvar probe RUN measures them, and the next report finds it."
        )
    return notes


def _provenance(cells: Sequence[StudyCell]) -> dict[str, Any]:
    """Versions and dates."""
    runs = [read_config(cell.path) or {} for cell in cells if cell.finished]
    begun = sorted(str(run.get("created", "")) for run in runs)
    return {
        "runs": f"{len(runs)}, begun {begun[0]} to {begun[-1]}" if runs else "none here",
        "written with": written_with({"kvar": str(run.get("kvar", "")), **run.get("versions", {})} for run in runs),
        "read with": written_with([{"kvar": __version__, **versions()}]),
    }
