"""Which kernel serves a design best, as a clause."""

from __future__ import annotations

import math

from kvar.results.choices import Choice, leaders

__all__ = ["CRITERIA_SHOWN", "verdict_of"]

CRITERIA_SHOWN = {"efficiency": "efficiency (Adam, tuned rates)", "mse": "squared error (plain SGD)"}
"""How a criterion is called in a report."""

_ALIKE = 100


def verdict_of(choice: Choice, criterion: str, sure: float = 0.95) -> str:
    """One clause: the best kernel and its probability, or that the data do not tell, and how many more would."""
    if choice.reason:
        return f"not told: {choice.reason}"
    first = leaders(choice, criterion)
    if not first:
        return (
            f"not resolved: {choice.units} {choice.unit} do not tell the true gradient's direction from noise; "
            "measure more"
        )
    (name, chance), rest = first[0], first[1:]
    if chance >= sure:
        return f"{name}, with probability {chance:.2f}"
    same = {round(p, 3) for _, p in first}
    others = ", ".join(f"{other} ({p:.2f})" for other, p in rest) or "others, each below 0.1"
    if len(same) == 1 and rest:
        names = [other for other, _ in first]
        return f"not resolved: {', '.join(names[:-1])} and {names[-1]} come out alike ({chance:.2f} each)"
    return f"not resolved: {name} ({chance:.2f}) or {others}; {_more(choice, criterion)}"


def _more(choice: Choice, criterion: str) -> str:
    needed = (choice.needed or {}).get(criterion, math.nan)
    if not math.isfinite(needed) or needed > _ALIKE * choice.units:
        return f"so alike that {_ALIKE} times the {choice.units} {choice.unit} would not tell: take either"
    if needed <= choice.units:
        return f"a few more {choice.unit} than {choice.units} would tell"
    shown = max(float(f"{needed:.2g}"), choice.units + 1)
    return (
        f"about {shown:,.0f} {choice.unit} ({needed / choice.units:.2g} times the {choice.units} there are) would "
        "tell, were the difference seen the true one"
    )
