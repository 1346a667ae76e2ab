"""A judge's answer, read strictly: A, B, tie, or invalid."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from kvar.evaluation.judge.question import Question

__all__ = ["Answer", "Judge", "JudgeError", "Verdict", "parse_verdict"]

Verdict: TypeAlias = Literal["A", "B", "tie", "invalid"]

_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_VERDICT = re.compile(r"[\s\"'`*\[(]*(?:(A)|(B)|([Tt]ie|TIE))[\s\"'`*\])]*\.?[\s\"'`*]*")


class JudgeError(ValueError):
    """A judge that cannot be asked; the message names it, what happened and the remedy."""


@dataclass(frozen=True)
class Answer:
    """A verdict on one question.

    Attributes:
        verdict: which response as shown, or "invalid".
        text: what the judge said, cut to 200 characters; or why the answer is invalid.
    """

    verdict: Verdict
    text: str = ""


class Judge(Protocol):
    """Anything that answers questions."""

    name: str
    markers: Sequence[str]

    def answers(self, questions: Sequence[Question]) -> Iterator[tuple[Question, Answer]]:
        """Each question with its answer as soon as there is one, in any order.

        Raises:
            JudgeError: the judge cannot be asked.
        """


def parse_verdict(text: str) -> Verdict:
    """The verdict in a judge's reply, which has to be nothing but a verdict.

    Quotes, brackets, stars and one full stop around the word are let pass, and one leading ``<think>`` block. Anything
    else, a sentence that names A or B included, is "invalid": to guess at it would let a response's own words win.

    Example:
        >>> [parse_verdict(t) for t in ("A", " **B**. ", "Tie", "a", "Response A is better", "")]
        ['A', 'B', 'tie', 'invalid', 'invalid', 'invalid']
    """
    found = _VERDICT.fullmatch(_THOUGHT.sub("", text, count=1))
    if found is None:
        return "invalid"
    return "A" if found[1] else "B" if found[2] else "tie"
