"""Wilson's interval of a share; Wilson (1927)."""

from __future__ import annotations

import math

from kvar.intervals.quantiles import check_confidence, normal_quantile

__all__ = ["wilson"]


def wilson(mean: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of the mean of n independent values in [0, 1].

    For wins and losses it is Wilson's interval of a proportion. With ties as one half it is conservative: a value in
    [0, 1] of mean p has variance p (1 - p) at most. It stays an interval where a bootstrap shrinks to a point, at all
    ties or all wins.

    Args:
        mean: in [0, 1].
        n: number of values.
        confidence: of the interval.

    Returns:
        Its ends; (0, 1) for n = 0.

    Raises:
        ValueError: a confidence outside (0, 1).

    Example:
        >>> [round(end, 3) for end in wilson(0.5, 20)]
        [0.299, 0.701]
    """
    check_confidence(confidence)
    if n == 0:
        return 0.0, 1.0
    z2 = normal_quantile(confidence) ** 2
    centre = (mean + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (mean * (1 - mean) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return max(centre - half, 0.0), min(centre + half, 1.0)
