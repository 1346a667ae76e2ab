"""One number with its interval, and how numbers are printed."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Interval", "number"]


def number(value: float, digits: int = 2) -> str:
    """A number to so many significant digits, without an exponent where it reads well.

    >>> [number(v) for v in (0.0286, 1.0, -0.00012, 256.0, 3.2e-9, 1.24e11, float("nan"))]
    ['0.029', '1', '-0.00012', '256', '3.2e-9', '1.2e11', '-']
    """
    if not math.isfinite(value):
        return "-" if math.isnan(value) else str(value)
    if value == 0 or 10 ** (digits - 1) <= abs(value) < 1e5:
        return f"{value:.{max(digits, 3)}g}" if abs(value) < 1000 else f"{value:.0f}"
    mantissa, e, power = f"{value:.{digits}g}".partition("e")
    return f"{mantissa}e{int(power)}" if e else mantissa


def _exponent(value: float) -> str:
    """Two significant digits, with an exponent below 0.001 and from 100,000.

    >>> [_exponent(v) for v in (-470000.0, 1640.0, 0.0, 0.00037, 2e-12)]
    ['-4.7e5', '1600', '0', '3.7e-4', '2e-12']
    """
    mantissa, power = f"{value:.1e}".split("e")
    if value == 0 or -3 <= int(power) <= 4:
        return f"{float(f'{value:.1e}'):g}"
    return f"{mantissa.removesuffix('.0')}e{int(power)}"


@dataclass(frozen=True)
class Interval:
    """A number with its confidence interval.

    Attributes:
        value: the point estimate.
        low: lower end of the interval; NaN where it is unknown.
        high: upper end.
        n: how many independent units (examples, prompts, seeds) it rests on, where that is told.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    n: int | None = None

    @property
    def known(self) -> bool:
        """Whether both ends of the interval are known."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    def above(self, other: Interval | float) -> bool:
        """Whether the interval lies wholly above a number, or above another known interval."""
        end = other.high if isinstance(other, Interval) else other
        return self.known and self.low > end

    def below(self, other: Interval | float) -> bool:
        """Whether the interval lies wholly below a number, or below another known interval."""
        end = other.low if isinstance(other, Interval) else other
        return self.known and self.high < end

    def __str__(self) -> str:
        """Value, then the interval in brackets where it is known.

        >>> str(Interval(0.0286, 0.024, 0.034)), str(Interval(1.0))
        ('0.029 (0.024 to 0.034)', '1')
        """
        if not self.known:
            return number(self.value)
        return f"{number(self.value)} ({number(self.low)} to {number(self.high)})"

    def compact(self) -> str:
        """The interval in few characters: to the same decimals, or each number with its own exponent; "-" for NaN.

        The decimals are those that the widest of the three needs; the value has more, up to three, where these would
        not show it.

        >>> Interval(0.0286, 0.024, 0.034).compact(), Interval(-2e4, -4.7e5, 1.6e3).compact()
        ('0.029 [0.024, 0.034]', '-20000 [-4.7e5, 1600]')
        >>> Interval(0.4, 1e-7, 99.0).compact(), Interval(350.0, 30.0, 1.2e7).compact()
        ('0.4 [0, 99]', '350 [30, 1.2e7]')
        >>> Interval(1.0).compact(), Interval(math.nan).compact()
        ('1.0', '-')
        """
        if math.isnan(self.value):
            return "-"
        numbers = [self.value, self.low, self.high] if self.known else [self.value]
        if not all(math.isfinite(v) for v in numbers):
            return f"{self.value:.2g}"
        top = max(abs(v) for v in numbers)
        power = math.floor(math.log10(top)) if top > 0 else 0
        digits = max(0, min(3, 1 - power))
        own = -math.floor(math.log10(abs(self.value))) if self.value else 0
        decimals = [max(digits, min(3, own)), digits, digits]
        plain = -2 <= power <= 2
        texts = [
            f"{round(v, d) + 0.0:.{d}f}" if plain else _exponent(v) for v, d in zip(numbers, decimals, strict=False)
        ]
        return f"{texts[0]} [{texts[1]}, {texts[2]}]" if len(texts) == 3 else texts[0]

    def plus_minus(self, digits: int) -> str:
        """The value and half the interval's width, to so many decimals.

        >>> Interval(21.534, 20.9, 22.168).plus_minus(2), Interval(0.5).plus_minus(2)
        ('21.53 ± 0.63', '0.50')
        """
        half = f" ± {(self.high - self.low) / 2:.{digits}f}" if self.known else ""
        return f"{self.value:.{digits}f}{half}"
