"""A judge's answer, read strictly: A, B, tie, or invalid."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from kvar.evaluation.judge.question import Question
from kvar.rollouts.samplers.server import ServerError

__all__ = ["Answer", "Judge", "JudgeError", "Verdict", "parse_verdict"]

Verdict: TypeAlias = Literal["A", "B", "tie", "invalid"]

_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_VERDICT = re.compile(r"[\s\"'`*\[(]*(?:(A)|(B)|([Tt]ie|TIE))[\s\"'`*\])]*\.?[\s\"'`*]*")


JudgeError = ServerError
"""A judge that cannot be asked; the message names it, what happened and the remedy."""


@dataclass(frozen=True)
class Answer:
    """A verdict on one question.

    Attributes:
        verdict: which response as shown, or "invalid".
        text: the judge's reply, cut to 200 characters; or why the answer is invalid.
    """

    verdict: Verdict
    text: str = ""


class Judge(Protocol):
    """Anything that answers questions."""

    name: str
    markers: Sequence[str]

    def answers(self, questions: Sequence[Question]) -> Iterator[tuple[Question, Answer]]:
        """Each question with its answer, in any order; raises JudgeError where the judge cannot be asked."""


def parse_verdict(text: str) -> Verdict:
    """The verdict in a judge's reply, which has to be a verdict and nothing else.

    Quotes, brackets, stars and one full stop around the word, and one leading ``<think>`` block, are allowed. Anything
    else, even a sentence that names A or B, is "invalid", so that no text of a response can decide the verdict.

    Example:
        >>> [parse_verdict(t) for t in ("A", " **B**. ", "Tie", "a", "Response A is better", "")]
        ['A', 'B', 'tie', 'invalid', 'invalid', 'invalid']
    """
    match = _VERDICT.fullmatch(_THOUGHT.sub("", text, count=1))
    if match is None:
        return "invalid"
    return "A" if match[1] else "B" if match[2] else "tie"
