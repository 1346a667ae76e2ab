"""The final number of a worked answer, read without evaluating text."""

from __future__ import annotations

import math
import re

__all__ = ["answers_match", "extract_answer", "last_number"]

_NUMBER = r"-?\s?[$€£]?\s?-?(?:\d[\d,]*(?:\.\d+)?|\.\d+)"
_ANSWER = re.compile(rf"####\s*({_NUMBER})")
_ANY = re.compile(r"(?:(?<![\d)])-)?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")


def extract_answer(text: str) -> float | None:
    r"""The first number after ``####``, without currency signs and thousands separators; None without one.

    >>> extract_answer("48/2 = <<48/2=24>>24 clips\n#### 1,072"), extract_answer("#### -$5.50")
    (1072.0, -5.5)
    >>> extract_answer("I do not know") is None
    True
    """
    match = _ANSWER.search(text)
    return float(re.sub(r"[^\d.-]", "", match.group(1))) if match else None


def last_number(text: str) -> float | None:
    """The last number of a text, for responses without ``####``; None without one.

    >>> last_number("So she has 3 + 4 = 1,007 in all."), last_number("none")
    (1007.0, None)
    """
    numbers = _ANY.findall(text)
    return float(numbers[-1].replace(",", "")) if numbers else None


def answers_match(predicted: float | None, reference: float | None, tolerance: float = 1e-4) -> bool:
    """Whether both are finite numbers that differ by at most ``tolerance`` (the reference recipe's 1e-4).

    The tolerance is absolute: a relative one of that size would accept 100,005 for 100,000. A relative 1e-9 allows for
    rounding of floats.
    """
    if predicted is None or reference is None or not (math.isfinite(predicted) and math.isfinite(reference)):
        return False
    return math.isclose(predicted, reference, rel_tol=1e-9, abs_tol=tolerance)
