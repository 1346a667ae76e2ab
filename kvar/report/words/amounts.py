"""Amounts and names in a sentence."""

from __future__ import annotations

import math

from kvar.intervals import Interval

__all__ = ["listed", "percent", "rounded", "scaled", "several", "span", "whole"]

_WIDE = 100.0
"""An interval whose ends differ by more than this factor is told by its nearer end alone."""


def several(count: int, what: str) -> str:
    """A number of things, in words."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def percent(x: Interval) -> str:
    """A share with its interval."""
    whole = [f"{100 * v:.0f}" for v in (x.value, x.low, x.high)]
    return f"{whole[0]} % [{whole[1]}, {whole[2]}]" if x.known else f"{whole[0]} %"


def span(x: Interval) -> str:
    """Value and ends of a positive quantity; one end alone where the other is far away or infinite."""
    if math.isnan(x.value):
        return "an unknown number of"
    if not x.known:
        return f"about {rounded(x.value)}"
    if not math.isfinite(x.high) or x.high > _WIDE * x.low > 0:
        return f"at least {rounded(x.low)}" if x.low > 0 else "an unknown number of"
    return f"{rounded(x.value)} [{rounded(x.low)}, {rounded(x.high)}]"


def scaled(x: Interval, by: float) -> Interval:
    """The interval times a number."""
    return Interval(x.value * by, x.low * by, x.high * by, x.n)


def rounded(x: float) -> str:
    """Two significant digits, three from 1,000 on, with commas.

    >>> [rounded(x) for x in (1234567.0, 1236.0, 64.4, 2.345, 0.0)]
    ['1,230,000', '1,240', '64', '2.3', '0']
    """
    if x >= 1000:
        return f"{float(f'{x:.3g}'):,.0f}"
    return f"{float(f'{x:.2g}'):g}" if x < 100 else f"{x:.0f}"


def whole(x: float) -> str:
    """A whole number, with commas."""
    return f"{x:,.0f}"


def listed(names: list[str]) -> str:
    """Names as a clause."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
