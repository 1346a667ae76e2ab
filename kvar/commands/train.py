"""``kvar train``."""

from __future__ import annotations

import argparse

HELP = "train a student by CONFIG"
KEPT = "the output folder is kept; run the same command again to resume."


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("-h", "--help", action="store_true", help="every field, with its default")
    parser.add_argument("config", nargs="?", help="a YAML file, or the name of a config that ships with kvar")
    parser.add_argument("--overwrite", action="store_true", help="discard a run in the output folder")


def run(arguments: argparse.Namespace, fields: list[str]) -> int:
    """Train, or print the help page."""
    from kvar.study.settings.field_values import from_words
    from kvar.study.settings.reading import find_config, is_study, load_yaml, read_settings, settings_from

    overrides = from_words(fields)
    if arguments.help:
        from kvar.study.settings.field_help import field_help

        values = load_yaml(find_config(arguments.config)) if arguments.config else {}
        if is_study(values):
            raise ValueError(f"{arguments.config} is a study; see kvar study {arguments.config} --help.")
        if values:
            settings_from(values, arguments.config)  # refuses unknown fields
        print(field_help({**values, **overrides}, arguments.config))
        return 0
    if arguments.config is None:
        raise ValueError("train needs a CONFIG: a YAML file, or the name of one that ships; see kvar train --help.")
    from kvar.study.run.run import train_run

    settings, training = read_settings(arguments.config, overrides)
    train_run(settings, training, overwrite=arguments.overwrite)
    if settings.probe.probe_every and training.process_index == 0:
        folder = training.output_dir
        print(f"what the probes say: kvar advise {folder}, or figures: kvar report {folder} --output {folder}/report")
    return 0
