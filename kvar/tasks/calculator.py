"""A calculator for expressions in generated text: numbers, + - * / % and parentheses only."""

from __future__ import annotations

import re
from fractions import Fraction

__all__ = ["MAX_LENGTH", "calculate", "open_mark"]

MAX_LENGTH = 80  # characters of an expression; the longest of GSM8K's 27,998 has 30
LARGEST = 10**15  # bound of results, below which a float holds every whole number
_TOKEN = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+|[-+*/()%])")


def calculate(expression: str, decimals: int = 6) -> str | None:
    """The value of ``expression`` as text, or None where it has none.

    Sums, products and quotients are exact fractions, so 0.1+0.2 is 0.3; only the printed result is rounded. There are
    no powers, names or calls, nothing is evaluated by Python, and the length bounds time and memory.

    Args:
        expression: numbers (thousands separators allowed), + - * /, % after a number, parentheses, blanks.
        decimals: most digits after the point; trailing zeros are dropped.

    Returns:
        The result's text; None for anything malformed or longer than ``MAX_LENGTH``, a division by zero, or 10^15 or
        more.

    Example:
        >>> calculate("48/2"), calculate("0.1+0.2"), calculate("(3-1)*20%"), calculate("1,200/7")
        ('24', '0.3', '0.4', '171.428571')
        >>> calculate("1/0"), calculate("9**9"), calculate("__import__('os')")
        (None, None, None)
    """
    if len(expression) > MAX_LENGTH:
        return None
    tokens = _tokens(re.sub(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))", "", expression))
    if not tokens:
        return None
    try:
        value, rest = _sum(tokens)
    except (ValueError, ZeroDivisionError):
        return None
    if rest or abs(value) >= LARGEST:
        return None
    return _text(round(value, decimals), decimals)


def open_mark(text: str, opening: str = "<<", closing: str = ">>") -> tuple[str, str] | None:
    """The unclosed calculator mark at the end of ``text``: (expression, text after its "="), or None.

    Example:
        >>> open_mark("He sold 48/2 = <<48/2="), open_mark("<<48/2=2"), open_mark("<<48/2=24>>24")
        (('48/2', ''), ('48/2', '2'), None)
    """
    _, mark, inside = text.rpartition(opening)
    if not mark or closing in inside or "=" not in inside:
        return None
    expression, _, follows = inside.partition("=")
    return expression, follows


def _tokens(text: str) -> list[str]:
    tokens, position = [], 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return []
        tokens.append(match.group(1))
        position = match.end()
    return tokens


def _sum(tokens: list[str]) -> tuple[Fraction, list[str]]:
    value, tokens = _product(tokens)
    while tokens and tokens[0] in "+-":
        right, rest = _product(tokens[1:])
        value = value + right if tokens[0] == "+" else value - right
        tokens = rest
    return value, tokens


def _product(tokens: list[str]) -> tuple[Fraction, list[str]]:
    value, tokens = _signed(tokens)
    while tokens and tokens[0] in "*/":
        right, rest = _signed(tokens[1:])
        value = value * right if tokens[0] == "*" else value / right
        tokens = rest
    return value, tokens


def _signed(tokens: list[str]) -> tuple[Fraction, list[str]]:
    if not tokens:
        raise ValueError("the expression ends too early")
    head, rest = tokens[0], tokens[1:]
    if head in "+-":
        value, rest = _signed(rest)
        return (-value if head == "-" else value), rest
    if head == "(":
        value, rest = _sum(rest)
        if rest[:1] != [")"]:
            raise ValueError("a parenthesis is not closed")
        rest = rest[1:]
    elif head[0] in ".0123456789":
        value = Fraction(head)
    else:
        raise ValueError(f"{head} where a number should be")
    while rest[:1] == ["%"]:
        value, rest = value / 100, rest[1:]
    return value, rest


def _text(value: Fraction, decimals: int) -> str:
    scaled = int(abs(value) * 10**decimals)
    whole, part = divmod(scaled, 10**decimals)
    digits = str(part).zfill(decimals).rstrip("0") if decimals and part else ""
    return ("-" if value < 0 else "") + str(whole) + (f".{digits}" if digits else "")
