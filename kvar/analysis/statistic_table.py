"""The statistics of a measurement, each told once: its meaning, and the scale of its interval, axis and mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kvar.intervals.jackknife import Array, Estimate, Scale, jackknife

__all__ = ["MEANINGS", "TABLE", "Statistic", "estimate", "label_of"]


@dataclass(frozen=True)
class Statistic:
    """One statistic.

    Attributes:
        label: what it is, as axes name it.
        remark: the number of theory.md's equation, and what else a reader has to know.
        scale: on which its jackknife interval is symmetric; None for one without an interval of its own.
        log: whether it is shown on a logarithmic axis.
        geometric: whether seeds are averaged as logarithms (variances, their ratios, noise scales).
        sign: 1 where more of it is better, -1 where less is, 0 where neither.
        needs: what it is formed from besides moments: the teacher's "values"; "theory", which has to be asked for; or a
            "study" (:func:`kvar.results.combined.in_noise`).
        repeats: whether it is another statistic but for a factor; figures and menus leave it out.
        scaled: whether it changes with a factor of the estimator, so that it cannot be compared between estimators
            without a common scale (:func:`kvar.estimators.comparable`).
    """

    label: str
    remark: str = ""
    scale: Scale | None = None
    log: bool = False
    geometric: bool = False
    sign: int = 0
    needs: Literal["values", "theory", "study"] | None = None
    repeats: bool = False
    scaled: bool = False


TABLE = {
    "trace": Statistic("tr Cov(g)", "eq. (8)", "log", log=True, geometric=True, sign=-1, scaled=True),
    "trace_ratio": Statistic(
        "tr Cov(g), paired ratio to K = 1", "", "log", log=True, geometric=True, sign=-1, scaled=True
    ),
    "trace_ratio_t0": Statistic(
        "the ratio that T0 predicts", "eqs. (15) and (16)", log=True, geometric=True, needs="values"
    ),
    "trace_ratio_t1": Statistic("the ratio that T1 predicts", "eq. (17)", log=True, geometric=True, needs="theory"),
    "calibration_t0": Statistic("T0's ratio over the measured one", "", "log", needs="theory"),
    "calibration_t1": Statistic("T1's ratio over the measured one", "", "log", needs="theory"),
    "signal": Statistic("|E g|^2", "eq. (12), never clamped", "root", scaled=True),
    "snr": Statistic("|E g|^2 / (tr Cov / B)", "squared signal over the variance of a step", "root", sign=1),
    "relative_variance": Statistic("tr Cov / |E g|^2", "", "log", log=True, geometric=True, sign=-1),
    "norm_test": Statistic(
        "tr Cov / (B |E g|^2)", "the norm test's squared error of a batch", "log", log=True, sign=-1
    ),
    "bias_sq": Statistic("|E g - g*|^2", "eq. (7), never clamped", "root", sign=-1, scaled=True),
    "efficiency": Statistic("efficiency η", "eq. (11'), below zero where it points away", "plain", sign=1),
    "mse": Statistic("mean squared error of a step", "eq. (10)", "root", log=True, sign=-1, scaled=True),
    "within": Statistic("E_x tr Cov(g | x)", "eq. (9)", "log", log=True, geometric=True, scaled=True),
    "between": Statistic("tr Cov_x E[g | x]", "eq. (9)", "plain", log=True, scaled=True),
    "within_share": Statistic("within / tr Cov", "", "plain"),
    "best_probability": Statistic("probability that this kernel has the highest η"),
    "mse_best_probability": Statistic("probability that this kernel has the smallest error"),
    "score_power": Statistic(
        "tr F",
        "the score power sum_t |s_t|^2 of a response; the same for every kernel",
        "log",
        log=True,
        needs="theory",
    ),
    "variance_per_score_power": Statistic(
        "tr Cov / tr F",
        "flat over sizes if eq. (16) is all there is",
        "log",
        log=True,
        sign=-1,
        needs="theory",
        scaled=True,
    ),
    "noise_scale": Statistic(
        "the relative variance by its other name", "", "log", log=True, geometric=True, sign=-1, repeats=True
    ),
    "trace_t0": Statistic(
        "tr Cov(g) that T0 predicts", log=True, geometric=True, needs="values", repeats=True, scaled=True
    ),
    "bias_in_noise": Statistic("squared bias over a step's noise of K = 1", needs="study", repeats=True),
    "mse_in_noise": Statistic("squared error over a step's noise of K = 1", log=True, needs="study", repeats=True),
}
"""Every value of the column "statistic" of a measurement's table, in the order in which pages and menus show them."""

MEANINGS = {
    name: f"{statistic.label}, {statistic.remark}".removesuffix(", ")
    for name, statistic in TABLE.items()
    if not statistic.repeats
}
"""Known statistics and what they are, with theory.md's equation numbers."""


def label_of(name: str) -> str:
    """What an axis calls a statistic; the name itself of one that is not in :data:`TABLE`."""
    return TABLE[name].label if name in TABLE else name


def estimate(name: str, replicated: Array, units: int, confidence: float = 0.95) -> Estimate:
    """A statistic with its jackknife interval, on the scale that :data:`TABLE` names for it.

    Args:
        name: of the statistic.
        replicated: (1 + U, E): with all units, then with each left out.
        units: U.
        confidence: of the interval.
    """
    scale = TABLE[name].scale
    assert scale is not None  # a statistic without an interval has no replicates
    return jackknife(replicated, units, confidence, scale)
