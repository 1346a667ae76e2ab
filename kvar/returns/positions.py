"""Token weights split by position, so that one measurement shows where along a response the variance arises."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["position_edges", "split_by_position"]


def position_edges(mask: Tensor, bins: int) -> list[int]:
    """Edges of ``bins`` ranges of positions that hold about as many tokens each.

    Args:
        mask: (N, T), true on response tokens.
        bins: how many ranges, at most T.

    Returns:
        Ascending positions 0 = e_0 < e_1 < ... < T; fewer ranges than asked for where tokens pile up at one position.

    Raises:
        ValueError: a number of bins outside 1..T, or no tokens.

    Example:
        >>> position_edges(torch.ones(2, 8), 4)
        [0, 2, 4, 6, 8]
    """
    t = mask.shape[1]
    if not 1 <= bins <= t:
        raise ValueError(f"bins must lie between 1 and T = {t}; got {bins}.")
    counts = mask.bool().sum(dim=0).double()
    if float(counts.sum()) == 0:
        raise ValueError("mask has no token: positions need responses.")
    reached = counts.cumsum(0) / counts.sum()
    inner = [int(torch.searchsorted(reached, b / bins - 1e-9)) + 1 for b in range(1, bins)]
    return sorted({0, *inner, t})


def split_by_position(weights: Tensor, names: Sequence[str], edges: Sequence[int]) -> tuple[Tensor, list[str]]:
    """One estimator for every estimator and range of positions; they add up to the whole: g = sum_b g_b.

    Args:
        weights: (E, N, T) token weights.
        names: the E estimators' names.
        edges: B + 1 ascending positions from 0 to T; range b holds positions edges[b] .. edges[b+1] - 1.

    Returns:
        (E * B, N, T) weights, zero outside their range, and their names, "K=4 @ 0-7" and so on, estimator by estimator.

    Raises:
        ValueError: edges that do not run from 0 to T in ascending order, or a wrong number of names.

    Example:
        >>> split, names = split_by_position(torch.ones(1, 1, 4), ["K=1"], [0, 1, 4])
        >>> names, split[:, 0].tolist()
        (['K=1 @ 0-0', 'K=1 @ 1-3'], [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 1.0]])
    """
    e, _, t = weights.shape
    if len(names) != e:
        raise ValueError(f"names has {len(names)} entries for {e} estimators: give one name each.")
    ascending = all(a < b for a, b in itertools.pairwise(edges))
    if len(edges) < 2 or edges[0] != 0 or edges[-1] != t or not ascending:
        raise ValueError(f"edges must ascend from 0 to T = {t}; got {list(edges)}. See position_edges.")
    position = torch.arange(t, device=weights.device)
    ranges = list(itertools.pairwise(edges))
    inside = torch.stack([(position >= a) & (position < b) for a, b in ranges])  # (B, T)
    split = weights[:, None] * inside[None, :, None]
    return split.flatten(0, 1), [f"{name} @ {a}-{b - 1}" for name in names for a, b in ranges]
