"""Run a study: a grid of runs with one folder per cell, resumable.

A study file is a YAML mapping:

    common:   fields of every cell, those of RunSettings and DistillationConfig
    tasks:    optional; task's name -> fields of its cells, which replace those of common
    students: student's name -> its ``student_config``, or the folder or hub name of a pretrained one, or
              ``{student_layers: every 3}`` for one made of the teacher's layers; beside ``student_layers``,
              ``student_config`` or ``student``, any fields of its first stages, which replace the stage's
    stages:   a list of mappings; ``name``, optionally ``from`` (the earlier stage whose student it starts from, instead
              of random weights), ``seeds`` (its own, instead of the study's), and any fields
    methods:  the same as a mapping, name -> fields; they come after the stages
    seeds:    optional; a list of seeds, each cell's ``seed``

Cell (task, student, method, seed) is the run in ``OUTPUT/[task/]student/method[/seed-N]``. Finished cells are not run
again, killed ones are resumed, failed ones are reported and do not stop the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kvar.study.executors.local import Executor, InProcess, Job, LocalProcesses
from kvar.study.grid.cells import Cell, cells_of, read_study
from kvar.study.grid.folder import mark_study_folder
from kvar.study.grid.plan import Planned, describe_plan, plan_study
from kvar.study.run.interrupted import InterruptedRunError

__all__ = ["Cell", "cells_of", "describe_plan", "plan_study", "read_study", "run_study"]


def _say(text: str) -> None:
    print(text, flush=True)


def run_study(
    study: Mapping[str, Any],
    output: str | Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    only: Sequence[str] = (),
    overwrite: bool = False,
    jobs: int = 1,
    executor: Executor | None = None,
    say: Callable[[str], None] = _say,
) -> dict[str, str]:
    """Run the cells that are not finished.

    Args:
        study: from :func:`read_study`.
        output: the study's folder.
        overrides: fields set in every cell, which replace the study's.
        only: see ``select_cells``.
        overwrite: run every cell again.
        jobs: cells run at a time; several run in their own processes.
        executor: runs the cells, instead of this process or ``jobs`` processes.
        say: called with a line as each cell starts and ends.

    Returns:
        Failed cells, name -> error, including those whose start failed.

    Raises:
        ValueError: bad settings in any cell, or a folder that holds another run or study; raised before any run.
    """
    if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1:
        raise ValueError(f"jobs must be a number from 1; got {jobs!r}.")
    if jobs > 1 and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(f"jobs is {jobs} under accelerate launch, whose processes share every cell; leave one out.")
    planned = plan_study(study, output, overrides=overrides, only=only, overwrite=overwrite)
    if os.environ.get("RANK", "0") == "0" and any(item.state != "done" for item in planned):
        mark_study_folder(Path(output), cells_of(study))
    executor = executor or (InProcess() if jobs == 1 else LocalProcesses(jobs))
    try:
        failed = _run(planned, executor, overwrite, say)
    except KeyboardInterrupt as error:
        raise InterruptedRunError(
            f"{output} keeps its finished cells and the last checkpoints of the others; run the same command again to "
            "resume."
        ) from error
    finally:
        executor.close()
    before = sum(item.state == "done" for item in planned)
    done = len(planned) - before - len(failed)
    say(f"study: {len(planned)} cells, {before} done before, {done} now, {len(failed)} failed")
    for name, what in failed.items():
        say(f"  {name}: {what}")
    return failed


def _run(planned: Sequence[Planned], executor: Executor, overwrite: bool, say: Callable[[str], None]) -> dict[str, str]:
    """Start each cell as soon as the executor has a free slot and the cell's start is done."""
    labels = {item.cell.name: f"[{i}/{len(planned)}] {item.cell.name}" for i, item in enumerate(planned, start=1)}
    waiting: dict[str, Planned] = {}
    for item in planned:
        if item.state == "done":
            say(f"{labels[item.cell.name]}: already finished; nothing to do.")
        else:
            waiting[item.cell.name] = item
    running: set[str] = set()
    failed: dict[str, str] = {}
    while waiting or running:
        for name, item in list(waiting.items()):
            needs = item.cell.needs
            if needs in failed:
                failed[name] = f"not run: {needs}, from which it starts, failed"
                say(f"{labels[name]} {failed[name]}")
                del waiting[name]
            elif len(running) < executor.slots and needs not in running and needs not in waiting:
                say(labels[name])
                executor.start(Job(name, waiting.pop(name).values, overwrite))
                running.add(name)
        if running:
            name, error = executor.wait()
            running.discard(name)
            if error is not None:
                failed[name] = error
                say(f"{labels[name]} failed: {error}")
            elif executor.slots > 1:
                say(f"{labels[name]} done")
    return failed
