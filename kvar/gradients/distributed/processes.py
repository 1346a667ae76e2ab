"""Exchange of results and prompt numbers in a ``torch.distributed`` group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch.distributed as dist

from kvar.rollouts.types import Rollouts

__all__ = ["all_or_none", "distinct_prompts"]


def all_or_none(work: Callable[[], Any], process_group: dist.ProcessGroup | None = None) -> list[Any]:
    """Run ``work`` on every process and return all results on every process; if one fails, all raise.

    Args:
        work: this process's function, without collective operations. Its result must pickle.
        process_group: the processes; None for all.

    Returns:
        The results in the order of ranks.

    Raises:
        RuntimeError: another process failed; the message names it and its error. The failing one raises its error.
    """
    failure: Exception | None = None
    result: Any = None
    try:
        result = work()
    except Exception as error:
        failure = error
    answers: list[Any] = [None] * dist.get_world_size(process_group)
    text = None if failure is None else f"{type(failure).__name__}: {failure}"
    dist.all_gather_object(answers, (text, result), group=process_group)
    if failure is not None:
        raise failure
    for rank, (error_text, _) in enumerate(answers):
        if error_text is not None:
            raise RuntimeError(f"process {rank} failed: {error_text}")
    return [answer for _, answer in answers]


def distinct_prompts(rollouts: Rollouts, process_group: dist.ProcessGroup | None = None) -> Rollouts:
    """The same rollouts, their prompts numbered so that no two processes share a number.

    Args:
        rollouts: this process's, with prompts numbered on this process.
        process_group: the processes; None for all.
    """
    largest = int(rollouts.prompt_index.max()) + 1 if len(rollouts) else 0
    counts: list[Any] = [None] * dist.get_world_size(process_group)
    dist.all_gather_object(counts, largest, group=process_group)
    before = sum(counts[: dist.get_rank(process_group)])
    return replace(rollouts, prompt_index=rollouts.prompt_index + before)
