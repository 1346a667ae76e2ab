"""``kvar probe``."""

from __future__ import annotations

import argparse

HELP = "measure models without training them"
KEPT = "measured models are kept; run the same command again to resume."


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("target", metavar="CONFIG|RUN", help="a config, or a run's folder; --field value overrides it")
    parser.add_argument("--model", nargs="+", default=[], help="model folders or hub names to measure instead")
    parser.add_argument("--checkpoints", help="of a run: all, last, or steps such as 200,400; default its final model")
    parser.add_argument("--output", help="folder of the records; default RUN/probe, or the config's output_dir")
    parser.add_argument("--overwrite", action="store_true", help="discard the records in the output folder")


def run(arguments: argparse.Namespace, fields: list[str]) -> int:
    """Measure, and print the folder of the records."""
    from kvar.study.run.probing import plan_probe, probe_models
    from kvar.study.settings.field_values import from_words

    plan = plan_probe(
        arguments.target, output=arguments.output, models=arguments.model, checkpoints=arguments.checkpoints
    )
    folder = probe_models(plan, from_words(fields), overwrite=arguments.overwrite)
    print(f"records: {folder}; read them with kvar report {folder} --output DIR, kvar choose-k or kvar advise")
    return 0
