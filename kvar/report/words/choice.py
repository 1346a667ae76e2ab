"""Which kernel serves a design best, as a clause."""

from __future__ import annotations

import math
from collections.abc import Mapping

from kvar.analysis.frames.reference import target_words
from kvar.report.words.amounts import rounded
from kvar.results.choices import Choice, leaders

__all__ = ["CRITERIA_SHOWN", "clause", "told_by", "untold", "verdict_of"]

CRITERIA_SHOWN = {"efficiency": "efficiency (Adam, tuned rates)", "mse": "squared error (plain SGD)"}
"""How a criterion is called in a report."""

_ALIKE = 100


def clause(left: Mapping[str, float], unit: str = "prompts") -> str:
    """The best estimator and its probability, or which cannot be told apart.

    Args:
        left: of :func:`kvar.intervals.candidates`.
        unit: what more should be measured of where no direction is known.
    """
    if not left:
        return f"not resolved: the true gradient's direction cannot be distinguished from noise; measure more {unit}"
    *rest, last = left.items()
    if not rest:
        return f"{last[0]}, with probability {last[1]:.2f}"
    shown = ", ".join(f"{name} ({chance:.2f})" for name, chance in rest)
    return f"not resolved: {shown} and {last[0]} ({last[1]:.2f}) cannot be told apart"


def verdict_of(choice: Choice, criterion: str, *, caveat: bool = True) -> str:
    """One clause: the best kernel and its probability, or that the data do not tell, and how many more would.

    Args:
        choice: of one step's design.
        criterion: one of its criteria.
        caveat: say what the number of further units rests on.
    """
    if choice.reason:
        return f"not told: {choice.reason}"
    left = leaders(choice, criterion)
    said = clause(left, choice.unit)
    alike = len({round(chance, 3) for chance in left.values()}) < 2
    return said if alike else f"{said}; {_more(choice, criterion, caveat)}"


def untold(choice: Choice) -> str | None:
    """Why a design has no efficiency and no best kernel, and how many more would tell; None where it has.

    Args:
        choice: of one step's design.
    """
    if math.isnan(choice.target_units):
        return None
    seeds = choice.unit == "seeds"
    where = f"with each of the {choice.units} seeds" if seeds else f"with {choice.units:,} {choice.unit}"
    more = told_by(choice.target_units, 0 if seeds else choice.units, "prompts" if seeds else choice.unit)
    target = target_words(choice.reference)
    return f"no efficiency and no best kernel is told: |g*|^2 of {target}, is not told from zero {where}; {more}"


def told_by(units: float, measured: int, unit: str = "prompts") -> str:
    """How many units would tell |g*|^2 of the target from zero, as a clause.

    Args:
        units: of :func:`kvar.results.target_units.target_units`.
        measured: how many were measured, and did not tell.
        unit: what they are.
    """
    if not math.isfinite(units):
        return f"these {unit} do not tell how many would"
    count = rounded(max(units, measured + 1))
    return f"about {count} {unit} would, in four cases of five, were these numbers the true ones"


def _more(choice: Choice, criterion: str, caveat: bool) -> str:
    needed = (choice.needed or {}).get(criterion, math.nan)
    if not math.isfinite(needed) or needed > _ALIKE * choice.units:
        any_of = "either" if len(leaders(choice, criterion)) < 3 else "any of them"
        return f"so alike that {_ALIKE} times the {choice.units} {choice.unit} would not tell: take {any_of}"
    if needed <= choice.units:
        return f"a few more {choice.unit} than {choice.units} would tell"
    shown = max(float(f"{needed:.2g}"), choice.units + 1)
    return (
        f"about {shown:,.0f} {choice.unit} ({needed / choice.units:.2g} times the {choice.units} there are) would "
        f"tell{', were the difference seen the true one' * caveat}"
    )
