"""``kvar demo``."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from kvar.commands.values import whole

HELP = "measure and reinforce the shipped students, and report"
KEPT = "finished cells are kept; run the same command again to resume."


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--output", default="runs/demo", help="folder of runs, report.html and figures")
    parser.add_argument(
        "--batch", type=whole(1), default=64, help="trajectories per training step, B of theory.md (11')"
    )
    parser.add_argument("--overwrite", action="store_true", help="run everything again")


def run(arguments: argparse.Namespace) -> int:
    """Run the shipped study ``demo`` and report on it."""
    from kvar.report.by_run import report_runs
    from kvar.study.grid.cells import read_study
    from kvar.study.grid.run_grid import run_study

    start = time.perf_counter()
    failed = run_study(read_study("demo"), arguments.output, overwrite=arguments.overwrite)
    print(f"students measured and reinforced in {time.perf_counter() - start:.0f} s", flush=True)
    if failed:
        return 1
    print(report_runs([arguments.output], arguments.output, batch=arguments.batch))
    print(f"report: {Path(arguments.output) / 'report.html'}")
    return 0
