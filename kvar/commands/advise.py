"""``kvar advise``."""

from __future__ import annotations

import argparse

from kvar.commands.values import amount, training_step, whole

HELP = "estimator, prompts x responses and size of a step for a budget of tokens"
KEPT = "nothing was written; run the same command again."


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "run_folders",
        metavar="RUN",
        nargs="+",
        help="a run with a probe, records of kvar probe, or a saved measurement; or several seeds",
    )
    parser.add_argument("--tokens", type=amount, help="sampled tokens of one optimiser step; default the run's own")
    parser.add_argument(
        "--prompt-cost", type=amount, default=0.0, help="what a prompt costs beside its responses, in tokens; default 0"
    )
    parser.add_argument(
        "--steps",
        type=whole(1),
        default=1,
        help="choose for the mean of so many such steps, whose noise averages out; default 1",
    )
    parser.add_argument("--step", type=training_step, default="last", help="training step of the probe, or last")
    parser.add_argument("--group", default="all", help="parameter group, default all")
    parser.add_argument(
        "--reference", "--target", help="what to lead toward: an estimator, or J, J_kl, score, data; default J"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the page."""
    from kvar.records import load
    from kvar.report.advise import advise

    options = {
        "step": arguments.step,
        "group": arguments.group,
        "reference": arguments.reference,
        "prompt_cost": arguments.prompt_cost,
        "steps": arguments.steps,
    }
    print(advise([load(run) for run in arguments.run_folders], arguments.tokens, **options))
    return 0
