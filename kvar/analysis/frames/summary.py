"""Every statistic of a measurement in one tidy table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from kvar.analysis.bias import bias_estimate
from kvar.analysis.decompose import decomposition_of, within_share_of
from kvar.analysis.paired import ratio_of
from kvar.analysis.replicates import Replicates, Unit, replicates, resolve_reference
from kvar.analysis.score_power import score_power_of
from kvar.analysis.signal import signal_of
from kvar.analysis.statistic_table import TABLE, estimate
from kvar.analysis.step.best_k import best_k_of
from kvar.analysis.step.design import design_replicates, prompts_of
from kvar.analysis.step.noise_scale import noise_scale_of
from kvar.analysis.step.snr import snr_of
from kvar.analysis.theory.calibration import calibration_of
from kvar.analysis.theory.prediction import predicted_trace
from kvar.analysis.trace_covariance import trace_of
from kvar.estimators import comparable
from kvar.gradients.moments import GradientMoments
from kvar.intervals.jackknife import Array, Estimate
from kvar.returns import LLMR, Immediate, Kernel, KStep, TokenValues, parse_kernel

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["STATISTICS", "THEORY_STATISTICS", "kernel_of", "steps_of", "summarise"]

STATISTICS = tuple(name for name, statistic in TABLE.items() if statistic.needs in (None, "values"))
"""The values of the column "statistic"; those that need the teacher's values only where ``values`` are given."""

THEORY_STATISTICS = tuple(name for name, statistic in TABLE.items() if statistic.needs == "theory")
"""Further values where ``theory`` is asked for: the first three need ``values``, the last two measured score power."""


def summarise(
    moments: GradientMoments,
    prompts: float | None = None,
    rollouts_per_prompt: float = 1,
    values: TokenValues | None = None,
    mask: Tensor | None = None,
    kernels: Sequence[Kernel | None] | None = None,
    group: str = "all",
    batch: float = 64,
    reference: str | int | None = None,
    unit: Unit = None,
    confidence: float = 0.95,
    theory: bool = False,
) -> pd.DataFrame:
    """One row per (kernel, statistic): the numbers that a report shows, with their intervals.

    Args:
        moments: of E estimators.
        prompts: M of the step that ``mse``, ``efficiency`` and ``best_probability`` are for; batch / R by default.
        rollouts_per_prompt: R of that step; above 1 it needs prompts measured with two rollouts or more.
        values: (N, T) teacher values, for the T0 prediction (``trace_t0`` in gradient units only where score_power was
            measured, ``trace_ratio_t0`` always).
        mask: (N, T), with ``values``.
        kernels: the E kernels, None for what is more than a kernel of the gap; by default by the estimators' names.
        group: parameter group.
        batch: B, trajectories a step of R rollouts a prompt, of ``snr`` and ``norm_test``, and of ``efficiency`` and
            ``mse`` unless ``prompts`` is given.
        reference: the unbiased estimator that stands for g* in bias, error and efficiency; by default the first called
            K=1 or LLMR, else the first. Ratios are always to that default.
        unit: what was drawn independently.
        confidence: of the intervals.
        theory: also :data:`THEORY_STATISTICS`, which take several times as long as all others: T1's prediction;
            prediction over measurement of the ratio to K = 1 with its interval, for both levels; score power (one
            number, the same for every kernel) and variance per score power.

    Returns:
        Columns kernel, k (steps; inf for the immediate kernel, NaN for other kernels), statistic (see
        :data:`STATISTICS`), value, low, high, n. ``mse`` and ``bias_sq`` are in squared-gradient units; ``norm_test``
        is for ``batch``; ``best_probability`` is of the largest efficiency, ``mse_best_probability`` of the smallest
        error, neither with an interval. What the moments cannot tell (fields="norms"; parts (9) without two rollouts
        of two prompts; predictions for estimators with a baseline or a reward of their own, such as "K=1 -
        leave-one-out" and "kl immediate exact") is NaN; so are ratio, bias and error of a trainer's own estimator
        beside others, since its scale is that of its loss.

    Raises:
        ValueError: fewer than two trajectories, values without mask, an impossible design.
    """
    import pandas as pd

    m = prompts_of(batch, rollouts_per_prompt) if prompts is None else prompts
    r, plain = resolve_reference(moments.names, reference), resolve_reference(moments.names, None)
    known = np.where(comparable(moments.names, moments.names[plain]), 1.0, np.nan)
    paired = moments[group].pair is not None
    grouped = paired and unit != "trajectory" and moments.repeated_prompts > 1
    data = replicates(moments, group, unit)
    trace, absent = trace_of(data), _bare(np.full(len(moments.names), np.nan), data.units)

    def formed(name: str, replicated: Array) -> Estimate:
        return estimate(name, replicated, data.units, confidence)

    scale = formed("noise_scale", noise_scale_of(data))
    estimates: dict[str, Estimate] = {
        "trace": formed("trace", trace),
        "trace_ratio": formed("trace_ratio", ratio_of(trace, plain) * known),
        "signal": formed("signal", signal_of(data)),
        "noise_scale": scale,
        "relative_variance": scale,
        **dict.fromkeys(_OF_ALL_FIELDS, absent),
    }
    if paired or rollouts_per_prompt == 1:
        whole = rollouts_per_prompt == 1 or data.inner is not None  # else prompts are still to be left out
        design = data if whole else design_replicates(moments, group, unit, rollouts_per_prompt)
        ratio = snr_of(design, batch, rollouts_per_prompt)
        estimates["snr"] = estimate("snr", ratio, design.units, confidence)
        with np.errstate(all="ignore"):
            estimates["norm_test"] = estimate("norm_test", 1 / ratio, design.units, confidence)
    if paired:
        estimates["bias_sq"] = bias_estimate(data, r, confidence)
        estimates |= _best(best_k_of(design, r, m, rollouts_per_prompt, confidence), design.units)
    if grouped:
        by_prompt = data if data.inner is not None else replicates(moments, group, unit, by_prompt=True)
        estimates["within"], estimates["between"] = decomposition_of(by_prompt, confidence)
        share = within_share_of(by_prompt)
        estimates["within_share"] = estimate("within_share", share, by_prompt.units, confidence)
    kernels = [kernel_of(name) for name in moments.names] if kernels is None else kernels
    if values is not None:
        if mask is None:
            raise ValueError("values came without mask: pass the rollouts' mask too.")
        calibrated = theory and paired and moments.on is None
        estimates |= _theory(data, plain, moments, values, mask, kernels, group, confidence, calibrated)
    if theory and paired and moments[group].score_power is not None:
        power = score_power_of(moments, group, data.units)
        estimates["score_power"] = formed("score_power", power)[np.zeros(len(moments.names), int)]
        estimates["variance_per_score_power"] = formed("variance_per_score_power", trace / power)
    ks = [math.nan if " - " in name else steps_of(kernel) for name, kernel in zip(moments.names, kernels, strict=True)]
    rows = [
        (name, ks[e], statistic, est.value[e], est.low[e], est.high[e], est.n)
        for statistic, est in estimates.items()
        for e, name in enumerate(moments.names)
    ]
    return pd.DataFrame(rows, columns=["kernel", "k", "statistic", "value", "low", "high", "n"])


_OF_ALL_FIELDS = (
    "snr", "norm_test", "bias_sq", "efficiency", "mse", "within", "between", "within_share", "best_probability",
    "mse_best_probability",
)  # fmt: skip
"""Statistics that norms alone do not tell (``snr`` and ``norm_test`` where R > 1), in the table's order."""


def _best(best: pd.DataFrame, units: int) -> dict[str, Estimate]:
    """Efficiency, error, and the probabilities to be the best, of a table of ``best_k``."""
    columns = {
        name: [best[f"{name}{end}"].to_numpy() for end in ("", "_low", "_high")] for name in ("efficiency", "mse")
    }
    estimates = {name: Estimate(value, low, high, units) for name, (value, low, high) in columns.items()}
    return estimates | {
        "best_probability": _bare(best["efficiency_best"].to_numpy(), units),
        "mse_best_probability": _bare(best["mse_best"].to_numpy(), units),
    }


def _theory(
    data: Replicates,
    plain: int,
    moments: GradientMoments,
    values: TokenValues,
    mask: Tensor,
    kernels: Sequence[Kernel | None],
    group: str,
    confidence: float,
    calibrated: bool,
) -> dict[str, Estimate]:
    """The predictions, and how they compare with the measurement; NaN where a name says more than a kernel."""
    told = [kernel is not None and " - " not in name for name, kernel in zip(moments.names, kernels, strict=True)]
    known = np.where(told, 1.0, np.nan)
    compared = known if kernels[plain] is not None else np.full_like(known, np.nan)
    stated = [LLMR() if kernel is None else kernel for kernel in kernels]  # the prediction for None is not shown
    power = moments[group].score_power
    trace = predicted_trace(values, mask, stated, sq_score=power) - (0.0 if power is None else signal_of(data)[0])
    with np.errstate(all="ignore"):  # trajectories that do not differ have no ratio
        estimates = {
            "trace_t0": _bare(known * (trace if power is not None else np.nan), len(mask)),
            "trace_ratio_t0": _bare(compared * trace / trace[plain], len(mask)),
        }
        if not calibrated:
            return estimates
        table = calibration_of(data, plain, moments, values, mask, stated, group=group, confidence=confidence)
    for level, rows in table[table["scale"] == "relative"].groupby("level"):
        value, low, high = compared * rows[["calibration", "low", "high"]].to_numpy().T
        estimates[f"calibration_{str(level).lower()}"] = Estimate(value, low, high, int(rows["n"].iloc[0]))
        if level == "T1":
            estimates["trace_ratio_t1"] = _bare(compared * rows["predicted"].to_numpy(), len(mask))
    return estimates


def _bare(value: Array, n: int) -> Estimate:
    """Values without an interval."""
    return Estimate(value, np.full_like(value, np.nan), np.full_like(value, np.nan), n)


def kernel_of(name: str) -> Kernel | None:
    """The kernel that an estimator's name begins with; None for one that is more than a kernel of the gap, (4).

    Example:
        >>> [kernel_of(name) for name in ("K=4 - leave-one-out", "kl K=4", "K=4 ratio")]
        [KStep(k=4, terminal='anchored'), None, None]
    """
    try:
        return parse_kernel(name.partition(" - ")[0])
    except ValueError:
        return None


def steps_of(kernel: Kernel | str | None) -> float:
    """K of a K-step kernel, infinity for the immediate one, else NaN; NaN for names with a reward or a baseline."""
    if isinstance(kernel, str):
        kernel = None if " - " in kernel else kernel_of(kernel)
    if isinstance(kernel, KStep):
        return float(kernel.k)
    return math.inf if isinstance(kernel, Immediate) else math.nan
