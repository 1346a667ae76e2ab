"""Returns less their baseline, over a whole optimiser step: all its micro-batches, and all processes.

A baseline that is a mean over a batch (batch-mean, position-mean, minimum-variance) is the better the larger the batch,
and one that saw only a micro-batch would make the gradient depend on how a step is cut up. So the step's returns are
formed before the first loss, and the sums behind a baseline are added up over processes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kvar.returns import BASELINES, Kernel, TokenValues, returns

__all__ = ["TRAINING_BASELINES", "advantages"]

TRAINING_BASELINES = (*BASELINES, "minimum-variance")


def advantages(
    values: TokenValues,
    mask: Tensor,
    kernel: Kernel,
    baseline: str | None,
    *,
    prompt_index: Tensor,
    sq_score_norm: Tensor | None = None,
    positions: int | None = None,
    all_sum: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Advantages A_t = G_t - b of one kernel; see ``kvar.returns`` for what each baseline does to E[g].

    Args:
        values: the teacher's values of this process's N responses of the step.
        mask: (N, T), true on response tokens.
        kernel: of the returns.
        baseline: None, teacher-value, batch-mean, position-mean, leave-one-out (over a prompt's own rollouts), or
            minimum-variance: b = sum G |s|^2 / sum |s|^2 over the step's tokens.
        prompt_index: (N,), for leave-one-out.
        sq_score_norm: (N, T) |s_t|^2, for minimum-variance.
        positions: longest response of any process, for position-mean on several; None for T.
        all_sum: adds a tensor up over processes; None for one process.

    Returns:
        (N, T), zero where masked.

    Raises:
        ValueError: an unknown baseline, or minimum-variance without score norms.
    """
    if baseline is not None and baseline not in TRAINING_BASELINES:
        raise ValueError(f"baseline {baseline!r} is unknown; choose none or one of: {', '.join(TRAINING_BASELINES)}.")
    if baseline in (None, "teacher-value", "leave-one-out"):
        return returns(values, mask, [kernel], baseline=baseline, prompt_index=prompt_index)[0]
    full = returns(values, mask, [kernel])[0]  # zero where masked
    if baseline == "position-mean":
        wide = torch.zeros(2, positions or mask.shape[1], dtype=torch.float64, device=full.device)
        wide[0, : mask.shape[1]], wide[1, : mask.shape[1]] = full.double().sum(dim=0), mask.sum(dim=0)
        total, weight = (wide if all_sum is None else all_sum(wide))[:, : mask.shape[1]]
    else:
        if baseline == "batch-mean":
            power = mask.double()
        elif sq_score_norm is None:
            raise ValueError("baseline minimum-variance needs sq_score_norm, the (N, T) squared norms of the scores.")
        else:
            power = sq_score_norm.double().masked_fill(~mask, 0.0)
        sums = torch.stack([(full.double() * power).sum(), power.sum()])
        total, weight = sums if all_sum is None else all_sum(sums)
    shift = torch.where(weight > 0, total / torch.where(weight > 0, weight, 1.0), 0.0)
    return (full - shift.to(full.dtype)).masked_fill(~mask, 0.0)
