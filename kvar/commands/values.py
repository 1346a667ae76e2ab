"""Values of options, refused by argparse with the option's name where they are out of range."""

from __future__ import annotations

import argparse
from collections.abc import Callable

__all__ = ["amount", "training_step", "whole"]


def whole(least: int) -> Callable[[str], int]:
    """A type of argparse: whole numbers of at least ``least``."""

    def convert(word: str) -> int:
        try:
            number = int(word)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}; got {word!r}")
        return number

    return convert


def amount(word: str) -> float:
    """A type of argparse: a number; what it counts says which are refused."""
    try:
        return float(word.replace(",", ""))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number; got {word!r}") from None


def training_step(word: str) -> int | str:
    """A type of argparse: a training step, or ``last``."""
    if word != "last" and not word.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a training step or last; got {word!r}")
    return word if word == "last" else int(word)
