"""How many standard errors an interval reaches to each side; the one place where a confidence is checked."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np

__all__ = ["check_confidence", "normal_quantile", "t_quantile"]


def check_confidence(confidence: Any) -> float:
    """The confidence, if it is a share between 0 and 1.

    Raises:
        ValueError: it is not.

    Example:
        >>> check_confidence(95)
        Traceback (most recent call last):
        ValueError: confidence must lie between 0 and 1; got 95. Use 0.95 for a 95 % interval.
    """
    try:
        good = 0 < confidence < 1
    except TypeError:
        good = False
    if not good:
        raise ValueError(f"confidence must lie between 0 and 1; got {confidence!r}. Use 0.95 for a 95 % interval.")
    return float(confidence)


def normal_quantile(confidence: float) -> float:
    """Half the width of the interval of a standard normal variable.

    Raises:
        ValueError: a confidence outside (0, 1).

    >>> round(normal_quantile(0.95), 3)
    1.96
    """
    return NormalDist().inv_cdf(0.5 + check_confidence(confidence) / 2)


def t_quantile(freedom: Any, confidence: float) -> Any:
    """The same of Student's t; NaN for no degree of freedom.

    Args:
        freedom: degrees of freedom, a number or an array.
        confidence: of the interval.

    Raises:
        ValueError: a confidence outside (0, 1).

    >>> float(t_quantile(3, 0.95).round(3))
    3.182
    """
    from scipy.special import stdtrit

    level = 0.5 + check_confidence(confidence) / 2
    with np.errstate(invalid="ignore"):
        return np.where(np.asarray(freedom) > 0, stdtrit(freedom, level), np.nan)
