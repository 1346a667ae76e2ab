"""``kvar choose-k``."""

from __future__ import annotations

import argparse

from kvar.commands.values import training_step, whole

HELP = "the best kernel for a step's size"
KEPT = "nothing was written; run the same command again."


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "run_folders", metavar="RUN", nargs="+", help="a run with a probe, or records of kvar probe; or several seeds"
    )
    parser.add_argument("--prompts", type=whole(1), nargs="+", default=[16, 64, 256], help="M, default 16 64 256")
    parser.add_argument("--rollouts", type=whole(1), nargs="+", default=[1], help="R of each prompt, default 1")
    parser.add_argument("--step", type=training_step, default="last", help="training step of the probe, or last")
    parser.add_argument("--group", default="all", help="parameter group, default all")
    parser.add_argument("--reference", help="estimator of the true gradient, or J, J_kl, score; default J")
    parser.add_argument("--plot", metavar="FILE", help="draw efficiency and error against K as FILE.png and FILE.svg")


def run(arguments: argparse.Namespace) -> int:
    """Print the table of every step size."""
    from kvar.records import load
    from kvar.report.choose_k import choose_k

    options = {
        "step": arguments.step,
        "group": arguments.group,
        "reference": arguments.reference,
        "plot": arguments.plot,
    }
    print(choose_k([load(run) for run in arguments.run_folders], arguments.prompts, arguments.rollouts, **options))
    return 0
