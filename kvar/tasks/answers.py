"""The number behind ``####`` in a worked answer, read without ever evaluating text."""

from __future__ import annotations

import re

__all__ = ["answers_match", "extract_answer"]

_ANSWER = re.compile(r"####\s*(-?[\d,]*\.?\d+)")


def extract_answer(text: str) -> float | None:
    r"""The first number behind ``####``, thousands separators removed; None where there is none.

    >>> extract_answer("48/2 = <<48/2=24>>24 clips\n#### 1,072")
    1072.0
    >>> extract_answer("I do not know") is None
    True
    """
    found = _ANSWER.search(text)
    return float(found.group(1).replace(",", "")) if found else None


def answers_match(predicted: float | None, reference: float | None, tolerance: float = 1e-4) -> bool:
    """Whether both numbers are there and differ by at most ``tolerance`` (the reference recipe's 1e-4)."""
    return predicted is not None and reference is not None and abs(predicted - reference) <= tolerance
