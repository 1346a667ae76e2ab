"""``kvar evaluate``."""

from __future__ import annotations

import argparse

from kvar.commands.values import whole

HELP = "decode and score a model, or compare two"
KEPT = "results printed as written are kept; run the same command again."


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "targets", nargs="+", metavar="TARGET", help="a run's folder, or a config with --model; two are compared"
    )
    parser.add_argument("--checkpoint", help="of a run: checkpoint-200, 200 or last; default its final model")
    parser.add_argument("--model", help="model folder or hub name to evaluate with the config")
    parser.add_argument("--split", help="train, validation or test; default the run's eval_split")
    parser.add_argument("--limit", type=whole(0), help="the first this many examples, 0 for all; default eval_limit")
    parser.add_argument("--beams", type=int, help="1 is greedy; default the run's eval_beams")
    parser.add_argument("--batch", type=whole(1), default=64, help="prompts decoded together, default 64")
    parser.add_argument("--kernels", help="returns reported beside K=1, comma-separated; default the run's")
    parser.add_argument("--no-teacher", action="store_true", help="texts only: no returns, no gaps")
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap resamples, default 1000")
    parser.add_argument("--bootstrap-seed", type=int, default=0, help="seed of the resampling, default 0")
    parser.add_argument("--level", type=float, default=0.95, help="confidence level of the intervals, default 0.95")
    parser.add_argument("--output", help="JSON file of the result; default evaluation-SPLIT.json in the run's folder")


def run(arguments: argparse.Namespace, fields: list[str]) -> int:
    """Print the scores."""
    from kvar.study.evaluation.evaluate_runs import evaluate_runs
    from kvar.study.evaluation.result import Options
    from kvar.study.settings.field_values import from_words

    named = {f"eval_{name}": getattr(arguments, name) for name in ("split", "limit", "beams")}
    overrides = {**from_words(fields), **{name: value for name, value in named.items() if value is not None}}
    options = Options(
        arguments.batch, not arguments.no_teacher, arguments.resamples, arguments.bootstrap_seed, arguments.level
    )
    given = {name: getattr(arguments, name) for name in ("output", "checkpoint", "model", "kernels")}
    print(evaluate_runs(arguments.targets, overrides, options, **given))
    return 0
