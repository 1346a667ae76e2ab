"""Prediction over measurement, with intervals: how good T0 and T1 are; theory.md (15)-(17)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from torch import Tensor

from kvar.analysis.paired import ratio_of
from kvar.analysis.replicates import Replicates, Unit, need_pairs, replicates, resolve_reference
from kvar.analysis.signal import signal_of
from kvar.analysis.statistic_table import estimate
from kvar.analysis.theory.influence import weighted_replicates
from kvar.analysis.theory.law import score_power_by_position
from kvar.analysis.theory.prediction import advantage_parts, check_kernels, predicted_second_moment
from kvar.analysis.trace_covariance import trace_of
from kvar.gradients.moments import GradientMoments
from kvar.intervals.jackknife import Array
from kvar.returns import Kernel, TokenValues

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["calibrate", "calibration_of", "unit_of_rows"]

LEVELS: tuple[Literal["T0", "T1"], ...] = ("T0", "T1")


def calibrate(
    moments: GradientMoments,
    values: TokenValues,
    mask: Tensor,
    kernels: Sequence[Kernel],
    sq_score: Tensor | float | None = None,
    baseline: Literal["teacher-value"] | None = None,
    group: str = "all",
    reference: str | int | None = None,
    unit: Unit = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Predicted over measured tr Cov(g), T2 of theory.md, for every kernel and both levels of theory.

    Prediction and measurement come from the same trajectories, so the interval leaves units out of both at once: the
    measurement by the jackknife, the prediction to first order (:func:`weighted_replicates`).

    Args:
        moments: of E estimators, with all fields.
        values: (N, T) teacher values of the same trajectories.
        mask: (N, T).
        kernels: the E kernels, in the moments' order.
        sq_score: |s_t|^2 as :func:`kvar.analysis.theory.predict` takes it; None: the moments' score_power where it was
            measured, else unknown.
        baseline: None, or "teacher-value", as the estimators had it.
        group: parameter group.
        reference: estimator of the relative rows; by default the first called K=1 or LLMR, else the first.
        unit: what was drawn independently.
        confidence: of the intervals.

    Returns:
        Columns kernel, level, scale, predicted, measured, calibration (their quotient), low, high, n. Rows of scale
        "relative" hold each trace over the reference's own, which needs no score norms; rows of scale "absolute", there
        only where score norms are known, hold tr Cov itself. A calibration of 1 is a perfect prediction.

    Raises:
        ValueError: moments of other kernels or of norms only, and as :func:`kvar.analysis.theory.predict`.
    """
    need_pairs(moments, group, "calibrate")
    data, r = replicates(moments, group, unit), resolve_reference(moments.names, reference)
    return calibration_of(data, r, moments, values, mask, kernels, sq_score, baseline, group, confidence)


def calibration_of(
    data: Replicates,
    reference: int,
    moments: GradientMoments,
    values: TokenValues,
    mask: Tensor,
    kernels: Sequence[Kernel],
    sq_score: Tensor | float | None = None,
    baseline: Literal["teacher-value"] | None = None,
    group: str = "all",
    confidence: float = 0.95,
) -> pd.DataFrame:
    """The table of :func:`calibrate` from the measurement's replicates, with the reference by number."""
    import pandas as pd

    q, gap, mask = advantage_parts(values, mask, baseline)
    check_kernels(moments, kernels)
    known = sq_score if sq_score is not None else moments[group].score_power
    power = score_power_by_position(known, mask)
    member = unit_of_rows(moments, data.units)
    measured = trace_of(data)
    frames = []
    for level in LEVELS:
        predicted = weighted_replicates(
            lambda w, level=level: predicted_second_moment(q, gap, mask, power, kernels, level, w),  # type: ignore[misc]
            member,
            data.units,
        )
        if known is not None:
            absolute = predicted - signal_of(data)
            frames.append(_rows(moments.names, level, "absolute", absolute, measured, confidence))
            predicted = absolute
        relative = ratio_of(predicted, reference), ratio_of(measured, reference)
        frames.append(_rows(moments.names, level, "relative", *relative, confidence))
    return pd.concat(frames, ignore_index=True)


def unit_of_rows(moments: GradientMoments, units: int) -> np.ndarray:
    """(N,) the unit of :func:`replicates` that each trajectory belongs to: itself, or its prompt."""
    index = moments.prompt_index.numpy()
    if units == len(index):
        return np.arange(units)
    return np.unique(index, return_inverse=True)[1].reshape(-1)


def _rows(
    names: Sequence[str], level: str, scale: str, predicted: Array, measured: Array, confidence: float
) -> pd.DataFrame:
    import pandas as pd

    with np.errstate(all="ignore"):
        ratio = estimate(f"calibration_{level.lower()}", predicted / measured, len(measured) - 1, confidence)
    return pd.DataFrame(
        {
            "kernel": list(names),
            "level": level,
            "scale": scale,
            "predicted": predicted[0],
            "measured": measured[0],
            "calibration": ratio.value,
            "low": ratio.low,
            "high": ratio.high,
            "n": ratio.n,
        }
    )
