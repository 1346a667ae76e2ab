"""Predicted variance of the estimators from their returns alone; theory.md (15)-(17)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from kvar.analysis.paired import ratio_of
from kvar.analysis.replicates import replicates, resolve_reference
from kvar.analysis.signal import signal_of
from kvar.analysis.statistic_table import estimate
from kvar.analysis.theory.law import gap_law, score_power_by_position, second_moments
from kvar.analysis.trace_covariance import trace_of
from kvar.gradients.moments import GradientMoments
from kvar.intervals.jackknife import Array
from kvar.returns import LLMR, Kernel, TokenValues, check_mask

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["advantage_parts", "check_kernels", "predict", "predicted_second_moment", "predicted_trace"]


def predicted_second_moment(
    q: Tensor,
    gap: Tensor,
    mask: Tensor,
    power: Tensor,
    kernels: Sequence[Kernel],
    level: Literal["T0", "T1"],
    weight: Tensor,
) -> Tensor:
    """(E,) sum_t E|s_t|^2 (Var G_t + (E G_t)^2), (16) without its last term; differentiable in ``weight``.

    Args:
        q: (N, T) float64, less its baseline.
        gap: (N, T) float64.
        mask: (N, T) bool.
        power: (N, T), |s_t|^2, zero where masked.
        kernels: E kernels.
        level: "T0" or "T1".
        weight: (N,), how often each trajectory counts.
    """
    by_position = (weight[:, None] * power).sum(dim=0) / weight.sum()
    second = second_moments(gap_law(q, gap, mask, level, weight), mask, kernels, weight)
    return second @ by_position


def advantage_parts(
    values: TokenValues, mask: Tensor, baseline: Literal["teacher-value"] | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Values as the predictions take them: q less its baseline, gap, mask; float64 on the CPU.

    Raises:
        ValueError: another baseline, or no tokens.
    """
    if baseline not in (None, "teacher-value"):
        raise ValueError(f"baseline must be None or 'teacher-value' for a prediction; got {baseline!r}.")
    mask = check_mask(mask).cpu()
    if not bool(mask.any()):
        raise ValueError("mask has no token: a prediction needs responses.")
    q = values.q if baseline is None else values.q - values.v
    return q.detach().double().cpu(), values.gap.detach().double().cpu(), mask


def check_kernels(moments: GradientMoments, kernels: Sequence[Kernel]) -> None:
    """Refuse kernels that are not as many as the estimators measured.

    Raises:
        ValueError: another number.
    """
    if len(moments.names) != len(kernels):
        raise ValueError(
            f"moments hold {len(moments.names)} estimators for {len(kernels)} kernels: measure these very kernels."
        )


def predicted_trace(
    values: TokenValues,
    mask: Tensor,
    kernels: Sequence[Kernel],
    level: Literal["T0", "T1"] = "T0",
    sq_score: Tensor | float | None = None,
    baseline: Literal["teacher-value"] | None = None,
) -> Array:
    """(E,) the trace of :func:`predict`, without its last term |E g|^2; the arguments are those of :func:`predict`."""
    q, gap, mask = advantage_parts(values, mask, baseline)
    power = score_power_by_position(sq_score, mask)
    ones = torch.ones(len(mask), dtype=torch.float64)
    return np.asarray(predicted_second_moment(q, gap, mask, power, kernels, level, ones).numpy())


def predict(
    values: TokenValues,
    mask: Tensor,
    kernels: Sequence[Kernel],
    level: Literal["T0", "T1"] = "T0",
    sq_score: Tensor | float | None = None,
    baseline: Literal["teacher-value"] | None = None,
    moments: GradientMoments | None = None,
    group: str = "all",
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Predict tr Cov(g) by (16): sum_t E|s_t|^2 (Var G_t + (E G_t)^2) - |E g|^2.

    What is assumed: returns are independent of scores, and cross terms between tokens' scores vanish, (16). T0, (15):
    gaps have one mean and variance at all positions and are independent of each other and of q; then Var G_t = Var q_t
    + sigma^2 sum_{j>=1} w_j^2 and E G_t = E q_t - mu sum_{j>=1} w_j. T1, (17): as T0, with the measured autocovariance
    of gaps by lag and their covariance with q_t. Response lengths are taken as they are. |E g|^2 is the measured
    signal (12) where ``moments`` and score norms are given, and otherwise left out, being small beside the rest.

    Args:
        values: (N, T) teacher values.
        mask: (N, T).
        kernels: E kernels.
        level: "T0" or "T1".
        sq_score: E|s_t|^2: (N, T) per token; (N,) per trajectory, the sum over its tokens, spread evenly; or a number,
            the same for all tokens. None: ``moments``' score_power where it was measured, else 1, when ``trace`` is in
            units of E|s|^2 and only ``ratio`` can be held against a measurement.
        baseline: None, or "teacher-value", which takes V_t away from q_t.
        moments: a measurement of the same kernels, in this order, to be put beside the prediction.
        group: parameter group of the measurement.
        confidence: of the measurement's intervals.

    Returns:
        A table with one row per kernel: kernel, level, trace, ratio (to LLMR's prediction); with ``moments`` also
        measured_trace, low and high, measured_ratio, ratio_low and ratio_high (to its K=1 or first estimator, whose
        prediction ``ratio`` is then relative to as well).

    Raises:
        ValueError: an unknown level or baseline, no tokens, a sq_score of another shape, other moments.

    Example:
        >>> from kvar.returns import KStep
        >>> gap = torch.rand(500, 8, generator=torch.Generator().manual_seed(0))
        >>> table = predict(TokenValues(q=-gap, v=0 * gap), torch.ones(500, 8), [KStep(1), KStep(4)])
        >>> table["ratio"].round(1).tolist()
        [1.0, 0.2]
    """
    import pandas as pd

    if level not in ("T0", "T1"):
        raise ValueError(f"level must be 'T0' or 'T1'; got {level!r}.")
    if moments is not None:
        check_kernels(moments, kernels)
        sq_score = moments[group].score_power if sq_score is None else sq_score
    trace = predicted_trace(values, mask, [*kernels, LLMR()], level, sq_score, baseline)
    data = None if moments is None else replicates(moments, group)
    if data is not None and sq_score is not None:  # the signal is in gradient units: only where the trace is, too
        trace[:-1] -= signal_of(data)[0]
    names = [getattr(kernel, "name", repr(kernel)) for kernel in kernels]
    table = pd.DataFrame({"kernel": names, "level": level, "trace": trace[:-1], "ratio": trace[:-1] / trace[-1]})
    if moments is None or data is None:
        return table
    r = resolve_reference(moments.names, None)
    whole = estimate("trace", trace_of(data), data.units, confidence)
    ratio = estimate("trace_ratio", ratio_of(trace_of(data), r), data.units, confidence)
    table["ratio"] = trace[:-1] / trace[r]
    table["measured_trace"], table["low"], table["high"] = whole.value, whole.low, whole.high
    table["measured_ratio"], table["ratio_low"], table["ratio_high"] = ratio.value, ratio.low, ratio.high
    return table
