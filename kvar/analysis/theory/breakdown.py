"""Why T0 fails where it fails: tr Cov(g) as T0's second moment plus the terms that T0 leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from kvar.analysis.replicates import Unit, need_pairs, replicates
from kvar.analysis.signal import signal_of
from kvar.analysis.theory.calibration import unit_of_rows
from kvar.analysis.theory.influence import weighted_replicates
from kvar.analysis.theory.law import gap_law, score_power_by_position, second_moments
from kvar.analysis.theory.prediction import advantage_parts, check_kernels
from kvar.gradients.moments import GradientMoments
from kvar.intervals.jackknife import jackknife
from kvar.returns import Kernel, TokenValues, returns

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TERMS", "breakdown"]

TERMS = (
    "T0",
    "gap autocorrelation",
    "gap and q",
    "position",
    "gap and score",
    "pairs of tokens",
    "squared mean",
)
"""The terms of :func:`breakdown`, in order; they add up to tr Cov(g)."""


def breakdown(
    moments: GradientMoments,
    values: TokenValues,
    mask: Tensor,
    kernels: Sequence[Kernel],
    sq_score: Tensor,
    baseline: Literal["teacher-value"] | None = None,
    group: str = "all",
    unit: Unit = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Split the measured tr Cov(g) into T0's second moment and six corrections; an identity, term by term.

    With P_t = E|s_t|^2 (zero behind a response's end) and S_t the second moment of G_t:

        T0                   sum_t P_t S_t with gaps i.i.d. and independent of q, (15)
        gap autocorrelation  what the measured autocovariance of gaps by lag adds
        gap and q            what the covariance of q_t with later gaps adds; with both, T1, (17)
        position             what the measured E[G_t^2] at each position adds: gaps that drift along the response, or
                             with its length
        gap and score        sum_t E[G_t^2 |s_t|^2] - P_t E[G_t^2 | alive]: returns and score norms that depend on
                             each other
        pairs of tokens      E|g|^2 - sum_t E[G_t^2 |s_t|^2] = 2 sum_{t<u} E[G_t G_u <s_t, s_u>]
        squared mean         - |E g|^2

    Args:
        moments: of E estimators, with all fields.
        values: (N, T) teacher values of the same trajectories.
        mask: (N, T).
        kernels: the E kernels, in the moments' order.
        sq_score: (N, T), |s_t|^2 of every token, in the parameters of ``group``.
        baseline: None, or "teacher-value", as the estimators had it.
        group: parameter group.
        unit: what was drawn independently.
        confidence: of the intervals.

    Returns:
        Columns kernel, term (of :data:`TERMS`, and "trace", their sum), value, low, high (squared-gradient units),
        share (of the measured trace), n.

    Raises:
        ValueError: score norms that are not (N, T), moments of other kernels or of norms only.
    """
    import pandas as pd

    need_pairs(moments, group, "breakdown")
    q, gap, mask = advantage_parts(values, mask, baseline)
    if tuple(sq_score.shape) != tuple(mask.shape):
        raise ValueError(
            f"sq_score must be {tuple(mask.shape)}, one |s_t|^2 a token; got {tuple(sq_score.shape)}. Only totals "
            "are known? Then use calibrate."
        )
    check_kernels(moments, kernels)
    power = score_power_by_position(sq_score, mask)
    plain = TokenValues(values.q.detach().double().cpu(), values.v.detach().double().cpu())
    squares = returns(plain, mask, kernels, baseline=baseline) ** 2

    def predicted(weight: Tensor) -> Tensor:
        """(4, E): T0, T0 with autocovariance, T1, and with measured second moments; then (1, E) the dependent sum."""
        by_position = (weight[:, None] * power).sum(dim=0) / weight.sum()
        full = gap_law(q, gap, mask, "T1", weight)
        laws = (gap_law(q, gap, mask, "T0", weight), replace(full, q_gap=torch.zeros_like(full.q_gap)), full)
        levels = [second_moments(law, mask, kernels, weight) @ by_position for law in laws]
        alive = (weight[:, None] * mask).sum(dim=0)
        measured = torch.einsum("n,ent->et", weight, squares) / torch.where(alive > 0, alive, 1.0)
        together = torch.einsum("n,ent,nt->e", weight, squares, power) / weight.sum()
        return torch.stack([*levels, measured @ by_position, together])

    data = replicates(moments, group, unit)
    cumulative = weighted_replicates(predicted, unit_of_rows(moments, data.units), data.units)  # (1 + U, 5, E)
    second = np.diagonal(data.square, axis1=1, axis2=2) / data.n
    steps = np.diff(np.concatenate([cumulative, second[:, None]], axis=1), axis=1)
    terms = np.concatenate([cumulative[:, :1], steps, -signal_of(data)[:, None]], axis=1)
    rows = []
    trace = terms.sum(axis=1)
    for name, term in (*zip(TERMS, terms.transpose(1, 0, 2), strict=True), ("trace", trace)):
        part = jackknife(term, data.units, confidence)
        for e, kernel in enumerate(moments.names):
            rows.append((kernel, name, part.value[e], part.low[e], part.high[e], part.value[e] / trace[0, e], part.n))
    return pd.DataFrame(rows, columns=["kernel", "term", "value", "low", "high", "share", "n"])
