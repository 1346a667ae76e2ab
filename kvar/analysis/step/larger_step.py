"""What a larger step buys, from the SNR of the step as it is; theory.md (29)."""

from __future__ import annotations

import math

from kvar.intervals.interval import Interval

__all__ = ["gain_of", "noiseless_share", "times_for_share"]


def noiseless_share(snr: Interval) -> Interval:
    """SNR / (1 + SNR): a step's efficiency over that of an infinite step of the same estimator, (29).

    With V the variance of the step's mean, SNR = |E g|^2 / V and c_inf the cosine of E g and g*, (11') is

        <E g, g*>^2 / ((|E g|^2 + V) |g*|^2) = c_inf^2 / (1 + 1 / SNR):

    what bias leaves times what noise leaves. For one response to each prompt 1 / SNR = B_noise / B with the noise scale
    B_noise = tr Cov / |E g|^2 (McCandlish et al. 2018). Ends below 0 are 0: a signal that may be nothing.

    >>> noiseless_share(Interval(1.0, -0.2, 3.0))
    Interval(value=0.5, low=0.0, high=0.75, n=None)
    """
    return Interval(_share(snr.value), _share(snr.low), _share(snr.high), snr.n)


def gain_of(snr: Interval, times: float = 2.0) -> Interval:
    """By how much a step of ``times`` the size raises the efficiency: (1 + 1 / SNR) / (1 + 1 / (times SNR)).

    It is ``times`` where noise is all and 1 where there is none; so that several steps never buy less than one that is
    as large as all of them, for learning rates tuned to each.

    >>> [round(x, 3) for x in (gain_of(Interval(1.0, 0.0, 9.0)).value, gain_of(Interval(1.0, 0.0, 9.0)).low)]
    [1.333, 1.053]
    """
    value, low, high = (
        times * (1 + x) / (1 + times * x) if math.isfinite(x := max(s, 0.0)) else (math.nan if math.isnan(s) else 1.0)
        for s in (snr.value, snr.low, snr.high)
    )
    return Interval(value, min(low, high), max(low, high), snr.n) if snr.known else Interval(value, n=snr.n)


def times_for_share(snr: Interval, share: float) -> Interval:
    """How many times as large a step is whose :func:`noiseless_share` is a given one: share / (1 - share) / SNR.

    Ends are infinite where the signal may be nothing.

    Raises:
        ValueError: a share outside (0, 1).

    >>> times_for_share(Interval(0.5, 0.0, 2.0), 0.8)
    Interval(value=8.0, low=2.0, high=inf, n=None)
    """
    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1; got {share!r}.")
    odds = share / (1 - share)
    value, high, low = (
        math.nan if math.isnan(x) else round(odds, 12) / x if x > 0 else math.inf
        for x in (snr.value, snr.low, snr.high)
    )
    return Interval(value, low, high, snr.n)


def _share(snr: float) -> float:
    if math.isnan(snr):
        return math.nan
    return 1.0 if math.isinf(snr) and snr > 0 else max(snr, 0.0) / (1 + max(snr, 0.0))
