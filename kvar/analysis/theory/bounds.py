"""How far one kernel's estimator can be from another's: bounds that hold for every policy; docs/theory.md, section 7.

With D = g^w - g^v = sum_t D_t s_t, D_t = sum_j (v_j - w_j) gap_{t+j}, on the same trajectory:

    ( sqrt(tr Cov g^w) - sqrt(tr Cov g^v) )^2 + |E g^w - E g^v|^2  <=  E|D|^2                                    (18)
    E|D|^2  <=  E[ (sum_t |D_t| |s_t|)^2 ]  <=  E[ (sum_t D_t^2) (sum_t |s_t|^2) ]                               (19)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kvar.analysis.replicates import Unit, need_pairs, replicates, resolve_reference
from kvar.gradients.moments import GradientMoments
from kvar.intervals.jackknife import Estimate, jackknife
from kvar.returns import LLMR, Kernel, TokenValues, lag_sums

__all__ = ["deviation", "gap_deviation"]


def deviation(
    moments: GradientMoments,
    group: str = "all",
    reference: str | int | None = None,
    unit: Unit = None,
    confidence: float = 0.95,
) -> Estimate:
    """E|g^w - g^v|^2, the right side of (18), with v the reference: a bound on bias^2 and change of noise together.

    What a kernel can take away from the standard deviation, it may give back as bias: the two squares share this
    budget. As the student closes in on the teacher's greedy tokens every gap, and with them the budget, goes to 0.

    Args:
        moments: of E estimators, with all fields.
        group: parameter group.
        reference: name or number; by default the first estimator called K=1 or LLMR, else the first.
        unit: what was drawn independently.
        confidence: of the interval.

    Returns:
        (E,) squared-gradient units; 0 for the reference.

    Raises:
        ValueError: fields="norms", or too few trajectories.
    """
    need_pairs(moments, group, "deviation")
    data = replicates(moments, group, unit)
    r = resolve_reference(moments.names, reference)
    square = np.diagonal(data.square, axis1=1, axis2=2)
    budget = square - data.square[:, :, r] - data.square[:, r, :] + square[:, r : r + 1]
    return jackknife(budget / data.n, data.units, confidence, scale="log")


def gap_deviation(
    values: TokenValues,
    mask: Tensor,
    kernels: Sequence[Kernel],
    score_power: Tensor | float,
    to: Kernel | None = None,
    confidence: float = 0.95,
) -> Estimate:
    """The right side of (19) from recorded gaps alone: E[(sum_t D_t^2) (sum_t |s_t|^2)], no gradient needed.

    Args:
        values: (N, T) teacher values.
        mask: (N, T).
        kernels: E kernels, w.
        score_power: (N,), sum_t |s_t|^2 of every trajectory as ``gradient_moments(..., score_power=True)`` measures
            it, or a number no |s_t|^2 exceeds (2 for a softmax over a table of logits), which then counts once a token.
        to: the kernel v; LLMR by default.
        confidence: of the interval.

    Returns:
        (E,) squared-gradient units.

    Raises:
        ValueError: a score_power that is neither a number nor (N,).

    Example:
        >>> from kvar.returns import Immediate
        >>> values = TokenValues(torch.zeros(1, 2), torch.tensor([[0.0, 3.0]]))  # one gap of 3 at the second token
        >>> gap_deviation(values, torch.ones(1, 2), [Immediate()], 2.0).value.tolist()
        [36.0]
    """
    n = len(mask)
    keep = mask.bool()
    gap = values.gap.detach().double()
    known = torch.as_tensor(score_power, dtype=torch.float64).detach().to(gap.device)
    if known.dim() == 0:
        known = known * keep.sum(dim=1)
    if tuple(known.shape) != (n,):
        raise ValueError(f"score_power must be a number or ({n},), one a trajectory; got shape {tuple(known.shape)}.")
    sums = lag_sums(gap, keep, [*kernels, to or LLMR()])
    squares = ((sums[:-1] - sums[-1]) ** 2).sum(dim=2) * known  # (E, N)
    by_row = squares.T.cpu().numpy()
    total = by_row.sum(axis=0)
    stacked = np.concatenate([total[None] / n, (total - by_row) / max(n - 1, 1)]) if n > 1 else by_row
    return jackknife(stacked, n, confidence, scale="log")
