"""Baselines by name."""

from kvar.estimators.baselines.base import Baseline
from kvar.estimators.baselines.group_normalised import GroupNormalised
from kvar.estimators.baselines.means import BatchMean, LeaveOneOut, MinimumVariance, PositionMean
from kvar.estimators.baselines.position_optimum import PositionOptimum
from kvar.estimators.baselines.w_proxy import WProxy

__all__ = [
    "BASELINES",
    "Baseline",
    "BatchMean",
    "GroupNormalised",
    "LeaveOneOut",
    "MinimumVariance",
    "PositionMean",
    "PositionOptimum",
    "WProxy",
]

BASELINES: dict[str, Baseline] = {
    baseline.name: baseline
    for baseline in (
        BatchMean(),
        PositionMean(),
        LeaveOneOut(),
        MinimumVariance(),
        PositionOptimum(),
        WProxy(),
        GroupNormalised(),
    )
}
"""Name -> baseline; "teacher-value" is part of (4) and not among them."""
