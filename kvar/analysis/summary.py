"""Every statistic of a measurement in one tidy table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from kvar.analysis.best_k import best_k
from kvar.analysis.bias import bias
from kvar.analysis.decompose import decompose, within_share
from kvar.analysis.efficiency import efficiency
from kvar.analysis.mse import mse
from kvar.analysis.noise_scale import noise_scale
from kvar.analysis.paired import ratio_to
from kvar.analysis.replicates import Unit, resolve_reference
from kvar.analysis.score_power import score_power, variance_per_score_power
from kvar.analysis.signal import signal
from kvar.analysis.snr import snr
from kvar.analysis.theory import calibrate, predict
from kvar.analysis.trace_covariance import trace_covariance
from kvar.gradients.moments import GradientMoments
from kvar.intervals.jackknife import Array, Estimate
from kvar.returns import Immediate, Kernel, KStep, TokenValues, parse_kernel

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["STATISTICS", "THEORY_STATISTICS", "steps_of", "summarise"]

STATISTICS = (
    "trace", "trace_ratio", "signal", "snr", "noise_scale", "relative_variance", "bias_sq", "efficiency", "mse",
    "within", "between", "within_share", "best_probability", "mse_best_probability", "norm_test", "trace_t0",
    "trace_ratio_t0",
)  # fmt: skip
"""The values of the column "statistic"; the last two only where ``values`` are given."""

THEORY_STATISTICS = ("trace_ratio_t1", "calibration_t0", "calibration_t1", "score_power", "variance_per_score_power")
"""Further values where ``theory`` is asked for: the first three need ``values``, the last two measured score power."""


def summarise(
    moments: GradientMoments,
    prompts: float | None = None,
    rollouts_per_prompt: float = 1,
    values: TokenValues | None = None,
    mask: Tensor | None = None,
    kernels: Sequence[Kernel] | None = None,
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
        kernels: the E kernels, with ``values`` if the estimators' names are not kernels' names.
        group: parameter group.
        batch: B, trajectories a step, of ``snr``, and of ``efficiency`` and ``mse`` unless ``prompts`` is given.
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
        of two prompts; predictions for estimators with a baseline, "K=1 - leave-one-out") is NaN.

    Raises:
        ValueError: fewer than two trajectories, values without mask, names that are no kernels, an impossible design.
    """
    import pandas as pd

    m = batch / rollouts_per_prompt if prompts is None else prompts
    shared = {"group": group, "unit": unit, "confidence": confidence}
    r, plain = resolve_reference(moments.names, reference), resolve_reference(moments.names, None)
    paired = moments[group].pair is not None
    grouped = (
        paired and unit != "trajectory" and int((moments.prompt_index.unique(return_counts=True)[1] > 1).sum()) > 1
    )
    found: dict[str, Estimate] = {
        "trace": trace_covariance(moments, **shared),  # type: ignore[arg-type]
        "trace_ratio": ratio_to(moments, trace_covariance, plain, confidence, group=group, unit=unit),
        "signal": signal(moments, **shared),  # type: ignore[arg-type]
        "snr": snr(moments, batch=batch, **shared),  # type: ignore[arg-type]
        "noise_scale": noise_scale(moments, **shared),  # type: ignore[arg-type]
    }
    found["relative_variance"] = found["noise_scale"]
    absent = _bare(np.full(len(moments.names), np.nan), found["trace"].n)

    def where(condition: bool, statistic: Callable[[], Estimate]) -> Estimate:
        return statistic() if condition else absent

    to = {**shared, "reference": r, "rollouts_per_prompt": rollouts_per_prompt}
    parts = decompose(moments, **shared) if grouped else None  # type: ignore[arg-type]
    found["bias_sq"] = where(paired, lambda: bias(moments, reference=r, **shared))  # type: ignore[arg-type]
    found["efficiency"] = where(paired, lambda: efficiency(moments, m * rollouts_per_prompt, **to))  # type: ignore[arg-type]
    found["mse"] = where(paired, lambda: mse(moments, m, **to))  # type: ignore[arg-type]
    found["within"], found["between"] = parts or (absent, absent)
    found["within_share"] = where(grouped, lambda: within_share(moments, **shared))  # type: ignore[arg-type]
    if paired:
        best = best_k(moments, m, **to)  # type: ignore[arg-type]
        found["best_probability"] = _bare(best["efficiency_best"].to_numpy(), found["efficiency"].n)
        found["mse_best_probability"] = _bare(best["mse_best"].to_numpy(), found["mse"].n)
    else:
        found["best_probability"] = found["mse_best_probability"] = absent
    scale = found["noise_scale"]
    found["norm_test"] = Estimate(scale.value / batch, scale.low / batch, scale.high / batch, scale.n)
    if values is not None:
        if mask is None:
            raise ValueError("values came without mask: pass the rollouts' mask too.")
        kernels = kernels if kernels is not None else [parse_kernel(name) for name in moments.names]
        found |= _theory(moments, values, mask, kernels, plain, theory and paired, group, unit, confidence)
    if theory and paired and moments[group].score_power is not None:
        found["score_power"] = score_power(moments, **shared)[np.zeros(len(moments.names), int)]  # type: ignore[arg-type]
        found["variance_per_score_power"] = variance_per_score_power(moments, **shared)  # type: ignore[arg-type]
    ks = [steps_of(name) for name in moments.names] if kernels is None else [steps_of(kernel) for kernel in kernels]
    rows = [
        (name, ks[e], statistic, est.value[e], est.low[e], est.high[e], est.n)
        for statistic, est in found.items()
        for e, name in enumerate(moments.names)
    ]
    return pd.DataFrame(rows, columns=["kernel", "k", "statistic", "value", "low", "high", "n"])


def _theory(
    moments: GradientMoments,
    values: TokenValues,
    mask: Tensor,
    kernels: Sequence[Kernel],
    plain: int,
    calibrated: bool,
    group: str,
    unit: Unit,
    confidence: float,
) -> dict[str, Estimate]:
    """The predictions, and how they compare with the measurement; NaN for estimators with a baseline."""
    known = np.where([" - " in name for name in moments.names], np.nan, 1.0)

    def ratio(trace: Array) -> Estimate:
        with np.errstate(all="ignore"):
            return _bare(known * trace / trace[plain], len(mask))

    trace = predict(values, mask, kernels, moments=moments, group=group)["trace"].to_numpy()
    absolute = known if moments[group].score_power is not None else np.full_like(known, np.nan)
    found = {"trace_t0": _bare(absolute * trace, len(mask)), "trace_ratio_t0": ratio(trace)}
    if calibrated:
        with np.errstate(all="ignore"):  # trajectories that do not differ have no ratio
            table = calibrate(
                moments, values, mask, kernels, group=group, reference=plain, unit=unit, confidence=confidence
            )
        rows = table[table["scale"] == "relative"]
        for level in ("T0", "T1"):
            own = rows[rows["level"] == level]
            value, low, high = (known * own[column].to_numpy() for column in ("calibration", "low", "high"))
            found[f"calibration_{level.lower()}"] = Estimate(value, low, high, int(own["n"].iloc[0]))
            if level == "T1":
                found["trace_ratio_t1"] = _bare(known * own["predicted"].to_numpy(), len(mask))
    return found


def _bare(value: Array, n: int) -> Estimate:
    """Values without an interval."""
    return Estimate(value, np.full_like(value, np.nan), np.full_like(value, np.nan), n)


def steps_of(kernel: Kernel | str) -> float:
    """K of a K-step kernel, infinity for the immediate one, else NaN."""
    if isinstance(kernel, str):
        try:
            kernel = parse_kernel(kernel)
        except ValueError:
            return math.nan
    if isinstance(kernel, KStep):
        return float(kernel.k)
    return math.inf if isinstance(kernel, Immediate) else math.nan
