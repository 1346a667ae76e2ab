"""The command line.

kvar measure FILE --student MODEL          measure a batch of responses that another trainer dumped
kvar train CONFIG [--field value ...]      train a student, with probes; --help lists every field
kvar probe CONFIG|RUN [--field value ...]  measure gradient moments of trained models, without training
kvar choose-k RUN...                       the kernel that serves a step of M prompts x R rollouts best
kvar advise RUN... --tokens N              estimator, prompts x responses and size of a step, in plain words
kvar evaluate RUN|CONFIG [RUN]             metrics with intervals of one model, or of two and their difference
kvar study CONFIG --output DIR             a grid of tasks, students, methods and seeds
kvar demo --output DIR                     the arithmetic study and its report, in minutes
kvar report RUN ... --output FILE          one HTML file and figures from finished runs
kvar judge RUN_A RUN_B --judge MODEL       win rate of one run's texts over another's, judged by a language model
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from kvar.commands import advise, choose_k, demo, evaluate, judge, measure, probe, report, study, train

__all__ = ["main"]

COMMANDS = {
    "measure": measure,
    "train": train,
    "evaluate": evaluate,
    "probe": probe,
    "choose-k": choose_k,
    "advise": advise,
    "study": study,
    "report": report,
    "demo": demo,
    "judge": judge,
}


def main(words: Sequence[str] | None = None) -> int:
    """Entry point of ``kvar``; returns 0 when done, 1 on failure, 2 for bad input, 130 when interrupted (Ctrl-C)."""
    try:
        arguments, fields = _parser().parse_known_args(words)
        if arguments.command in ("train", "probe", "evaluate", "study"):
            return int(arguments.run(arguments, fields))
        if fields:
            raise ValueError(f"unknown option {fields[0]!r}; see kvar --help.")
        return int(arguments.run(arguments))
    except ValueError as error:
        return _failed(error, 2)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return _failed(f"{error}. The disk is full: free some space, then run the same command again.", 1)
        return _failed(error, 1)
    except KeyboardInterrupt as error:
        return _failed(f"interrupted; {error if str(error) else arguments.kept}", 130)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line for bad options, as for all other bad input."""
        raise ValueError(f"{message}; see {self.prog} --help.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="kvar", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():  # "resolve": train and study have their own help pages
        options = commands.add_parser(name, help=command.HELP, allow_abbrev=False, conflict_handler="resolve")
        options.set_defaults(run=command.run, kept=command.KEPT)
        command.add_options(options)
    return parser


def _failed(what: object, status: int) -> int:
    rank = os.environ.get("RANK", "0")
    print(f"kvar{'' if rank == '0' else f' (process {rank})'}: {what}", file=sys.stderr)
    return status
