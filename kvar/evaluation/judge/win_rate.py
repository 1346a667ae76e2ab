"""Win rate with its interval, from verdicts in both orders."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from kvar.evaluation.judge.verdict import Verdict
from kvar.intervals import wilson

__all__ = ["Comparison", "Outcome", "outcome", "summarise"]

Outcome: TypeAlias = Literal["win", "loss", "tie", "inconsistent", "invalid"]


def outcome(shown_first: Verdict, shown_second: Verdict) -> Outcome:
    """The outcome for the first system of two verdicts on a pair.

    Args:
        shown_first: verdict with the first system's response as A.
        shown_second: verdict with the first system's response as B.

    Returns:
        "win" or "loss" where both orders name the same response; "tie" where both are ties; "inconsistent", which
        counts as a tie, where they differ; "invalid" where either is.

    Example:
        >>> outcome("A", "B"), outcome("B", "A"), outcome("A", "A"), outcome("A", "tie"), outcome("A", "invalid")
        ('win', 'loss', 'inconsistent', 'inconsistent', 'invalid')
    """
    if "invalid" in (shown_first, shown_second):
        return "invalid"
    if shown_first == shown_second == "tie":
        return "tie"
    if {shown_first, shown_second} == {"A", "B"}:
        return "win" if shown_first == "A" else "loss"
    return "inconsistent"


@dataclass(frozen=True)
class Comparison:
    """The first system against the second, over prompts.

    Attributes:
        win_rate: (wins + half the ties and inconsistent pairs) / n; NaN for n = 0.
        low: lower end of the 95 % interval.
        high: upper end.
        n: number of valid pairs.
        wins: pairs whose first response both orders prefer.
        losses: pairs whose second response both orders prefer.
        ties: pairs that both orders call a tie, equal texts included.
        inconsistent: pairs whose orders disagree; they count as ties.
        invalid: pairs with an invalid answer; left out.
        identical: pairs of equal texts, which the judge is not asked about.
        shown_first: share of "A" among the A and B answers; 0.5 for a judge without position bias, NaN without such
            answers.
    """

    win_rate: float
    low: float
    high: float
    n: int
    wins: int
    losses: int
    ties: int
    inconsistent: int
    invalid: int
    identical: int
    shown_first: float

    def __str__(self) -> str:
        """Two lines for a terminal."""
        bias = f"; {self.shown_first:.0%} of decided answers name the first shown"
        return (
            f"win rate {self.win_rate:.3f}, 95 % interval {self.low:.3f} to {self.high:.3f}, n = {self.n} prompts\n"
            f"{self.wins} wins, {self.losses} losses, {self.ties} ties ({self.identical} of equal texts), "
            f"{self.inconsistent} inconsistent (count as ties), {self.invalid} invalid (left out)"
            f"{'' if math.isnan(self.shown_first) else bias}"
        )


def summarise(verdicts: Mapping[int, tuple[Verdict, Verdict]], identical: int = 0) -> Comparison:
    """The comparison over all pairs, with Wilson's interval of the win rate.

    Args:
        verdicts: pair -> verdicts with the first system's response as A, and as B.
        identical: further pairs, of equal texts: ties.

    Example:
        >>> print(str(summarise({0: ("A", "B"), 1: ("A", "A"), 2: ("tie", "tie")})).splitlines()[0])
        win rate 0.667, 95 % interval 0.208 to 0.939, n = 3 prompts
    """
    count = Counter(outcome(*pair) for pair in verdicts.values())
    count["tie"] += identical
    answers = Counter(v for pair in verdicts.values() for v in pair)
    n = count["win"] + count["loss"] + count["tie"] + count["inconsistent"]
    rate = (count["win"] + 0.5 * (count["tie"] + count["inconsistent"])) / n if n else math.nan
    low, high = wilson(rate, n)
    decided = answers["A"] + answers["B"]
    return Comparison(
        win_rate=rate,
        low=low,
        high=high,
        n=n,
        wins=count["win"],
        losses=count["loss"],
        ties=count["tie"],
        inconsistent=count["inconsistent"],
        invalid=count["invalid"],
        identical=identical,
        shown_first=answers["A"] / decided if decided else math.nan,
    )
