"""``kvar study``."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from kvar.commands.values import whole

if TYPE_CHECKING:
    from kvar.study.executors.ray_cluster import RayCluster

HELP = "train a grid of students, methods, tasks and seeds"
KEPT = "finished cells are kept; run the same command again to resume."


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("-h", "--help", action="store_true", help="this page, and the contents of the named study")
    parser.add_argument("config", nargs="?", help="a YAML file, or the name of a study that ships with kvar")
    parser.add_argument("--output", help="the study's folder; a killed study resumes from it")
    parser.add_argument(
        "--only", nargs="*", default=[], help="cells to run: names, parts of names, or patterns such as '*/K=*/seed-0'"
    )
    parser.add_argument(
        "--jobs", type=whole(1), default=1, help="cells run at a time, in separate processes, default 1"
    )
    parser.add_argument("--ray", action="store_true", help="run cells on a Ray cluster instead; needs kvar[ray]")
    parser.add_argument("--ray-address", metavar="HOST:PORT", help="its head; default RAY_ADDRESS, or this machine's")
    parser.add_argument("--cell-cpus", type=float, help="with --ray: processors of a cell, default 1")
    parser.add_argument(
        "--cell-gpus", type=float, help="with --ray: GPUs of a cell, up to 1; default 1 on a cluster with GPUs"
    )
    parser.add_argument("--cell-retries", type=int, help="with --ray: restarts after a worker died, default 3")
    parser.add_argument("--list", action="store_true", help="only print the cells' names, starts first")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, check all but the weights, run nothing")
    parser.add_argument("--overwrite", action="store_true", help="run the cells again")
    parser.set_defaults(usage=parser.format_help)


def run(arguments: argparse.Namespace, fields: list[str]) -> int:
    """Run the cells, or print their names, the plan or the help page."""
    from kvar.study.grid.cells import cells_of, read_study, starts_first
    from kvar.study.grid.plan import describe_plan, plan_study
    from kvar.study.grid.run_grid import run_study
    from kvar.study.settings.field_values import from_words

    if arguments.help:
        from kvar.study.settings.field_help import study_help

        study = read_study(arguments.config) if arguments.config else None
        print(study_help(arguments.usage(), study, arguments.config))
        return 0
    if arguments.config is None:
        raise ValueError("study needs a CONFIG; see kvar study --help.")
    if arguments.output is None and not arguments.list:
        raise ValueError("study needs --output DIR; see kvar study --help.")
    overrides = from_words(fields)
    study = read_study(arguments.config)
    if arguments.list:
        print("\n".join(cell.name for cell in starts_first(cells_of(study, arguments.only))))
        return 0
    ray = _ray(arguments)
    options = {"overrides": overrides, "only": arguments.only, "overwrite": arguments.overwrite}
    if arguments.dry_run:
        print(describe_plan(plan_study(study, arguments.output, **options)))
        return 0
    return 1 if run_study(study, arguments.output, jobs=arguments.jobs, executor=ray, **options) else 0


def _ray(arguments: argparse.Namespace) -> RayCluster | None:
    """The executor of ``--ray``; None without it."""
    names = {"ray_address": "address", "cell_cpus": "cpus", "cell_gpus": "gpus", "cell_retries": "retries"}
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    if not arguments.ray:
        if given:
            raise ValueError(
                f"--{next(iter(given)).replace('_', '-')} is for a Ray cluster; add --ray, or leave it out."
            )
        return None
    if arguments.jobs != 1:
        raise ValueError(
            f"--jobs {arguments.jobs} is for this machine; with --ray the cluster's size counts. Leave it out."
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            "--ray cannot be used under accelerate launch, whose processes share every cell; leave one out."
        )
    from kvar.study.executors.ray_cluster import RayCluster

    return RayCluster(arguments.output, **{names[name]: value for name, value in given.items()})
