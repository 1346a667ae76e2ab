"""The command line: one thin function a command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

__all__ = ["main"]


def train(config: str, overrides: list[str]) -> None:
    """Train a student as a config file says."""
    from kvar.study.run import train_run
    from kvar.study.settings import read_settings

    train_run(*read_settings(config, overrides))


def main(words: Sequence[str] | None = None) -> int:
    """Entry point of ``kvar``."""
    parser = argparse.ArgumentParser(prog="kvar", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("train", help="train a student as CONFIG says; --FIELD VALUE overrides it")
    command.add_argument("config")
    arguments, overrides = parser.parse_known_args(words)
    try:
        train(arguments.config, overrides)
    except ValueError as error:
        print(f"kvar: {error}", file=sys.stderr)
        return 2
    return 0
