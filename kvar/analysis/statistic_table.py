"""The statistics of a measurement, each told once: its meaning, and the scale of its interval, axis and mean."""

from __future__ import annotations

from dataclasses import dataclass

from kvar.intervals.jackknife import Array, Estimate, Scale, jackknife

__all__ = ["FORMED_WITH_THEORY", "FORMED_WITH_VALUES", "MEANINGS", "REPEATED", "TABLE", "Statistic", "estimate"]


@dataclass(frozen=True)
class Statistic:
    """One statistic.

    Attributes:
        meaning: what it is, with theory.md's equation number.
        scale: on which its jackknife interval is symmetric; None for one without an interval of its own.
        log: whether it is shown on a logarithmic axis.
        geometric: whether seeds are averaged as logarithms (variances, their ratios, noise scales).
        sign: 1 where more of it is better, -1 where less is, 0 where neither.
    """

    meaning: str
    scale: Scale | None = None
    log: bool = False
    geometric: bool = False
    sign: int = 0


TABLE = {
    "trace": Statistic("tr Cov(g), eq. (8)", "log", log=True, geometric=True, sign=-1),
    "trace_ratio": Statistic("tr Cov(g), paired ratio to K = 1", "log", log=True, geometric=True, sign=-1),
    "trace_ratio_t0": Statistic("the ratio that T0, eqs. (15) and (16), predicts", log=True, geometric=True),
    "trace_ratio_t1": Statistic("the ratio that T1, eq. (17), predicts", log=True, geometric=True),
    "calibration_t0": Statistic("T0's ratio over the measured one", "log"),
    "calibration_t1": Statistic("T1's ratio over the measured one", "log"),
    "signal": Statistic("|E g|^2, eq. (12), never clamped", "root"),
    "snr": Statistic("|E g|^2 / (tr Cov / N)", "root", sign=1),
    "relative_variance": Statistic("tr Cov / |E g|^2", "log", log=True, geometric=True, sign=-1),
    "norm_test": Statistic("tr Cov / (B |E g|^2), the norm test's squared error of a batch", "log", log=True, sign=-1),
    "bias_sq": Statistic("|E g - g*|^2, eq. (7), never clamped", "root", sign=-1),
    "efficiency": Statistic("efficiency eta, eq. (11'), below zero where it points away", "plain", sign=1),
    "mse": Statistic("eq. (10)", "root", log=True, sign=-1),
    "within": Statistic("E_x tr Cov(g | x), eq. (9)", "log", log=True, geometric=True),
    "between": Statistic("tr Cov_x E[g | x], eq. (9)", "plain", log=True),
    "within_share": Statistic("within / tr Cov", "plain"),
    "best_probability": Statistic("probability that this kernel has the highest eta"),
    "mse_best_probability": Statistic("probability that this kernel has the smallest error"),
    "score_power": Statistic(
        "tr F, the score power sum_t |s_t|^2 of a response; the same for every kernel", "log", log=True
    ),
    "variance_per_score_power": Statistic(
        "tr Cov / tr F, flat over sizes if eq. (16) is all there is", "log", log=True, sign=-1
    ),
    "noise_scale": Statistic("the relative variance by its other name", "log", log=True, geometric=True, sign=-1),
    "trace_t0": Statistic("tr Cov(g) that T0 predicts", log=True, geometric=True),
}
"""Every value of the column "statistic" of a measurement's table, in the order in which pages and menus show them."""

FORMED_WITH_VALUES = ("trace_t0", "trace_ratio_t0")
"""Statistics that need the teacher's values besides the moments."""
FORMED_WITH_THEORY = ("trace_ratio_t1", "calibration_t0", "calibration_t1", "score_power", "variance_per_score_power")
"""Statistics that are formed only where theory is asked for."""
REPEATED = ("noise_scale", "trace_t0")
"""Statistics that repeat others but for a factor; figures and menus leave their names as they are."""

MEANINGS = {name: statistic.meaning for name, statistic in TABLE.items() if name not in REPEATED}
"""Known statistics and what they are, with theory.md's equation numbers."""


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
