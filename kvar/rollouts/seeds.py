"""Seeds of independent random streams, derived from integers."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["response_seeds", "stream_seed"]

_MASK = 2**64 - 1


def stream_seed(*names: int) -> int:
    """A seed in [0, 2**63) for the stream of these integers; close integers give unrelated seeds (splitmix64).

    Examples:
        >>> stream_seed(0, 1), stream_seed(1, 0)
        (313702574736366215, 3395948882924712079)
    """
    state = 0
    for name in names:
        state = ((state ^ (name & _MASK)) + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def response_seeds(seed: int, step: int, indices: Sequence[int], rollouts_per_prompt: int) -> list[int]:
    """A seed for every response of a batch, in the order of ``kvar.rollouts.sample``.

    Each depends only on the run's seed, the step, the example and the number of the rollout, not on process,
    micro-batch or row.

    Args:
        seed: of the run.
        step: optimiser steps taken before.
        indices: the examples' indices.
        rollouts_per_prompt: responses to each.
    """
    return [stream_seed(seed, step, index, r) for index in indices for r in range(rollouts_per_prompt)]
