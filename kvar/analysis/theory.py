"""Predicted variance of the estimators from their returns alone; theory.md (15)-(17)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from kvar.analysis.estimate import Array
from kvar.analysis.paired import ratio_to
from kvar.analysis.replicates import resolve_reference
from kvar.analysis.signal import signal
from kvar.analysis.trace_covariance import trace_covariance
from kvar.gradients.moments import GradientMoments
from kvar.returns import LLMR, Kernel, TokenValues, check_mask, lag_sums

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["predict"]


@dataclass(frozen=True)
class _Law:
    """Pooled moments of gaps and per-position moments of q.

    Attributes:
        mean: mu, of the gaps.
        gap_cov: (T,), autocovariance of gaps by lag; at level T0 only lag 0 is not zero.
        q_gap: (T,), covariance of q_t with gap_{t+lag}; zero at level T0 (lag 0 is never used).
        q_mean: (T,), E q_t over the responses that reach t.
        q_var: (T,), Var q_t likewise.
    """

    mean: float
    gap_cov: Array
    q_gap: Array
    q_mean: Array
    q_var: Array


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
    if baseline not in (None, "teacher-value"):
        raise ValueError(f"baseline must be None or 'teacher-value' for a prediction; got {baseline!r}.")
    mask = check_mask(mask)
    if not bool(mask.any()):
        raise ValueError("mask has no token: a prediction needs responses.")
    if moments is not None and len(moments.names) != len(kernels):
        raise ValueError(
            f"moments hold {len(moments.names)} estimators for {len(kernels)} kernels: measure these very kernels."
        )
    if sq_score is None and moments is not None:
        sq_score = moments[group].score_power
    power = _power(sq_score, mask)
    q = (values.q if baseline is None else values.q - values.v).double()
    law = _law(q.cpu().numpy(), values.gap.double().cpu().numpy(), mask.cpu().numpy(), level)
    second = _second_moments(law, mask, [*kernels, LLMR()])
    trace = np.einsum("t,et->e", power, second)
    if moments is not None and sq_score is not None:  # the signal is in gradient units: only where the trace is, too
        trace[:-1] -= signal(moments, group).value
    names = [getattr(kernel, "name", repr(kernel)) for kernel in kernels]
    table = pd.DataFrame({"kernel": names, "level": level, "trace": trace[:-1], "ratio": trace[:-1] / trace[-1]})
    if moments is None:
        return table
    whole = trace_covariance(moments, group, confidence=confidence)
    ratio = ratio_to(moments, trace_covariance, confidence=confidence, group=group)
    table["ratio"] = trace[:-1] / trace[resolve_reference(moments.names, None)]
    table["measured_trace"], table["low"], table["high"] = whole.value, whole.low, whole.high
    table["measured_ratio"], table["ratio_low"], table["ratio_high"] = ratio.value, ratio.low, ratio.high
    return table


def _power(sq_score: Tensor | float | None, mask: Tensor) -> Array:
    """(T,) mean over trajectories of |s_t|^2, counted as zero where a response has ended."""
    n, t = mask.shape
    if sq_score is None:
        sq_score = 1.0
    score = torch.as_tensor(sq_score, dtype=torch.float64).detach().cpu()
    own = mask.cpu()
    if score.dim() == 1 and score.shape == (n,):
        score = (score / own.sum(dim=1).clamp(min=1))[:, None].expand(n, t)
    if score.dim() not in (0, 2) or (score.dim() == 2 and tuple(score.shape) != (n, t)):
        raise ValueError(f"sq_score must be a number, ({n},) or {(n, t)}; got shape {tuple(score.shape)}.")
    return np.asarray(torch.where(own, score, torch.zeros((), dtype=torch.float64)).mean(dim=0).numpy())


def _law(q: Array, gap: Array, mask: np.ndarray, level: str) -> _Law:
    t = mask.shape[1]
    alive = np.maximum(mask.sum(axis=0), 1)
    q, gap = np.where(mask, q, 0.0), np.where(mask, gap, 0.0)
    q_mean = q.sum(axis=0) / alive
    centred_q = np.where(mask, q - q_mean, 0.0)
    mean = float(gap.sum() / mask.sum())
    centred = np.where(mask, gap - mean, 0.0)
    gap_cov, q_gap = np.zeros(t), np.zeros(t)
    for lag in range(t if level == "T1" else 1):
        pairs = max(int(mask[:, lag:].sum()), 1)
        gap_cov[lag] = (centred[:, : t - lag] * centred[:, lag:]).sum() / pairs
        if lag:
            q_gap[lag] = (centred_q[:, : t - lag] * centred[:, lag:]).sum() / pairs
    return _Law(mean, gap_cov, q_gap, q_mean, (centred_q**2).sum(axis=0) / alive)


def _second_moments(law: _Law, mask: Tensor, kernels: Sequence[Kernel]) -> Array:
    """(E, T) Var G_t + (E G_t)^2, averaged over the lengths of the responses that reach t."""
    t = mask.shape[1]
    lengths, counts = np.unique(mask.sum(dim=1).cpu().numpy(), return_counts=True)
    total, seen = np.zeros((len(kernels), t)), np.zeros(t)
    lag = np.abs(np.subtract.outer(np.arange(t), np.arange(t)))
    for length, count in zip(lengths.tolist(), counts.tolist(), strict=True):
        if length == 0:
            continue
        eye = torch.eye(length, dtype=torch.float64)
        w = lag_sums(eye, torch.ones(length, length), kernels).numpy().transpose(0, 2, 1)  # w[e, t, i]: gap i in G_t
        w = np.triu(w, 1)  # the own gap is part of q_t
        cov, q_gap = law.gap_cov[lag[:length, :length]], law.q_gap[lag[:length, :length]]
        variance = law.q_var[:length] - 2 * (w * q_gap).sum(axis=2) + ((w @ cov) * w).sum(axis=2)
        mean = law.q_mean[:length] - law.mean * w.sum(axis=2)
        total[:, :length] += count * (variance + mean**2)
        seen[:length] += count
    return total / np.maximum(seen, 1)
