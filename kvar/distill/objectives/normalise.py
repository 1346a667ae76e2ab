"""Normalisation of per-token losses.

An optimiser step may consist of several micro-batches on several processes. Its loss equals that of one big batch
because every part is divided by the *step's* tokens or responses, counted after sampling and before the first loss
(:mod:`kvar.distill.step.responses`); a mean of micro-batches' means would weight their tokens unequally.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["NORMALISATIONS", "Counts", "count", "normalise"]

NORMALISATIONS = ("token-mean", "sequence-mean", "sequence-token-mean")


@dataclass(frozen=True)
class Counts:
    """Denominators of one source of responses over a whole optimiser step.

    Attributes:
        tokens: response tokens of the step, divided by the number of processes, because data parallelism averages
            gradients over processes and the loss is their sum.
        responses: responses of the step, divided likewise.
    """

    tokens: float
    responses: float


def count(
    mask: Tensor,
    all_sum: Callable[[Tensor], Tensor] | None = None,
    processes: int = 1,
    *,
    responses: int | None = None,
) -> Counts:
    """Count the step's tokens and responses.

    Args:
        mask: (N, T) of this process's responses in all micro-batches.
        all_sum: sums a tensor over processes; None for one process.
        processes: number of processes.
        responses: how many rows of ``mask`` count; None for all.
    """
    rows = len(mask) if responses is None else responses
    local = torch.stack([mask.sum(), torch.full_like(mask.sum(), rows)]).double()
    tokens, total = (local if all_sum is None else all_sum(local)).tolist()
    return Counts(max(tokens, 1.0) / processes, max(total, 1.0) / processes)


def normalise(per_token: Tensor, mask: Tensor, counts: Counts, how: str) -> Tensor:
    """One micro-batch's share of the step's loss.

    token-mean           sum over all tokens / the step's tokens
    sequence-mean        sum over all tokens / the step's responses: (5) of theory.md, averaged over trajectories
    sequence-token-mean  each response's mean over its own tokens, averaged over the step's responses

    Args:
        per_token: (N, T).
        mask: (N, T), true on response tokens; other positions are ignored.
        counts: of the step.
        how: one of the above.

    Raises:
        ValueError: an unknown normalisation.

    Examples:
        >>> import torch
        >>> losses, mask = torch.tensor([[4.0, 2.0], [3.0, 9.0]]), torch.tensor([[1, 1], [1, 0]]).bool()
        >>> [float(normalise(losses, mask, count(mask), how)) for how in NORMALISATIONS]
        [3.0, 4.5, 3.0]
    """
    kept = per_token.masked_fill(~mask, 0.0)
    if how == "token-mean":
        return kept.sum() / counts.tokens
    if how == "sequence-mean":
        return kept.sum() / counts.responses
    if how == "sequence-token-mean":
        return (kept.sum(dim=1) / mask.sum(dim=1).clamp(min=1)).sum() / counts.responses
    raise ValueError(f"normalisation {how!r} is unknown; choose one of: {', '.join(NORMALISATIONS)}.")
