"""Where along the response the variance arises: tr Cov(g) split over ranges of positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kvar.analysis.replicates import Unit, need_pairs, replicates
from kvar.gradients.moments import GradientMoments
from kvar.intervals.jackknife import jackknife

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["by_position"]


def by_position(
    moments: GradientMoments, group: str = "all", unit: Unit = None, confidence: float = 0.95
) -> pd.DataFrame:
    """Variance of each range's part of g, and its share of the whole, from moments of split weights.

    With g = sum_b g_b, tr Cov(g) = sum_b tr Cov(g_b, g): "own" is tr Cov(g_b), what the range's tokens vary by
    themselves; "share" is tr Cov(g_b, g) / tr Cov(g), which counts half of every covariance with other ranges, adds up
    to 1 over ranges, and may be negative.

    Args:
        moments: of estimators named by :func:`kvar.returns.split_by_position`, with all fields.
        group: parameter group.
        unit: what was drawn independently.
        confidence: of the intervals.

    Returns:
        Columns kernel, first, last (positions), own, own_low, own_high (squared-gradient units), share, share_low,
        share_high, n.

    Raises:
        ValueError: names that are not "kernel @ first-last", or fields="norms".
    """
    import pandas as pd

    need_pairs(moments, group, "by_position")
    parsed = [_parsed(name) for name in moments.names]
    data = replicates(moments, group, unit)
    covariance = data.covariance()  # (1 + U, E, E)
    frames = []
    for kernel in dict.fromkeys(name for name, _, _ in parsed):
        rows = [i for i, (name, _, _) in enumerate(parsed) if name == kernel]
        block = covariance[:, rows][:, :, rows]
        part = jackknife(np.diagonal(block, axis1=1, axis2=2), data.units, confidence, scale="log")
        with np.errstate(all="ignore"):
            share = jackknife(block.sum(axis=2) / block.sum(axis=(1, 2))[:, None], data.units, confidence)
        frames.append(
            pd.DataFrame(
                {
                    "kernel": kernel,
                    "first": [parsed[i][1] for i in rows],
                    "last": [parsed[i][2] for i in rows],
                    "own": part.value,
                    "own_low": part.low,
                    "own_high": part.high,
                    "share": share.value,
                    "share_low": share.low,
                    "share_high": share.high,
                    "n": part.n,
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def _parsed(name: str) -> tuple[str, int, int]:
    kernel, at, places = name.rpartition(" @ ")
    first, dash, last = places.partition("-")
    if not at or not dash or not (first.isdigit() and last.isdigit()):
        raise ValueError(
            f"estimator {name!r} is no range of positions ('K=4 @ 0-7'): measure weights from "
            "kvar.returns.split_by_position."
        )
    return kernel, int(first), int(last)
