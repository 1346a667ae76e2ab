"""``kvar report``."""

from __future__ import annotations

import argparse

from kvar.commands.values import training_step, whole

HELP = "report on runs with probes"
KEPT = "parts of the new report may be missing; run the same command again."


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("runs", nargs="+", help="run folders, or folders above them; or one study with several seeds")
    parser.add_argument("--output", required=True, help="folder of report.html, figures and statistics.parquet")
    parser.add_argument("--reference", help="estimator of the true gradient, or J, J_kl, score; default J")
    parser.add_argument("--batch", type=whole(1), help="trajectories per training step, B; default 64, or the study's")
    parser.add_argument("--step", type=training_step, default="last", help="training step to show, or last")
    parser.add_argument("--by-run", action="store_true", help="report a study with several seeds run by run")
    parser.add_argument("--method", help="of such a study: the method that others are compared with, default llmr")
    parser.add_argument(
        "--teacher", action="append", default=[], metavar="TASK=FILE", help="of such a study: its teacher's evaluation"
    )
    parser.add_argument(
        "--earlier", metavar="FOLDER", help="of such a study: an earlier report, for cells whose runs are missing"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the report, by method for a study with several seeds, else by run."""
    from kvar.records.study_folder import is_grid
    from kvar.report.by_method import report_study
    from kvar.report.by_run import report_runs

    if len(arguments.runs) == 1 and is_grid(arguments.runs[0]) and not arguments.by_run:
        teachers = {}
        for word in arguments.teacher:
            task, _, file = word.partition("=")
            if not file:
                raise ValueError(f"--teacher {task!r} names no file; give TASK=FILE.")
            teachers[task] = file
        named = {"method": arguments.method} if arguments.method else {}
        options = {"reference": arguments.reference, "batch": arguments.batch, "earlier": arguments.earlier, **named}
        print(report_study(arguments.runs[0], arguments.output, teachers=teachers, **options))
        return 0
    if arguments.teacher or arguments.method or arguments.earlier:
        raise ValueError(
            "--method, --teacher and --earlier are for the folder of a study with several seeds; name only that folder."
        )
    options = {"reference": arguments.reference, "batch": arguments.batch or 64, "step": arguments.step}
    print(report_runs(arguments.runs, arguments.output, **options))
    return 0
