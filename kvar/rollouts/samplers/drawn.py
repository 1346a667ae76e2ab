"""Rollouts of any sampler, checked to be what it was asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kvar.rollouts.behaviour import check_behaviour
from kvar.rollouts.padding import pad_right
from kvar.rollouts.policy import Policy
from kvar.rollouts.types import Rollouts

__all__ = ["Sampler", "sample_by", "sampler_of"]

Sampler = Callable[[list[list[int]], int, int, int], tuple[Sequence[Sequence[int]], Sequence[Sequence[float]] | None]]
"""(M prompts' token ids, n, max_new_tokens, seed) -> the token ids of M n responses, a prompt's n next to each other,
ends included, and the log-probability of each token under the policy that drew it, or None where it is not known."""


def sample_by(
    sampler: Sampler,
    student: nn.Module,
    prompts: tuple[Tensor, Tensor],
    *,
    rollouts_per_prompt: int = 1,
    max_new_tokens: int,
    seed: int = 0,
    policy: Policy,
    stale: bool = False,
    **options: str,
) -> tuple[Rollouts, dict[str, float]]:
    """Responses of another sampler as rollouts, checked against the student.

    Args:
        sampler: see :data:`Sampler`.
        student: the policy that is measured or trained; the sampler draws from it, or from an earlier state of it.
        prompts: (M, S) ids and (M, S) mask.
        rollouts_per_prompt: R.
        max_new_tokens: length limit of responses.
        seed: passed to the sampler.
        policy: the student's action set.
        stale: accept log-probabilities of an earlier student.
        options: ``remedy`` of :func:`kvar.rollouts.check_behaviour`.

    Returns:
        N = M R rollouts with the sampler's log-probabilities (zero where it gives none), and
        :func:`kvar.rollouts.check_behaviour`'s numbers.

    Raises:
        ValueError: another number of responses, one that is empty, too long, goes on after an end, or stops without
            one before the limit; ids outside the action set; log-probabilities of another number, above 0, not finite,
            or of another model or temperature.
    """
    device = next(student.parameters()).device
    given = [ids[kept].tolist() for ids, kept in zip(prompts[0], prompts[1].bool(), strict=True)]
    reply = sampler(given, rollouts_per_prompt, max_new_tokens, seed)
    if not isinstance(reply, tuple) or len(reply) != 2:
        raise ValueError(
            "sampler must return (token ids of each response, their log-probabilities or None); got "
            f"{type(reply).__name__}."
        )
    count = len(given) * rollouts_per_prompt
    ids = [[int(token) for token in row] for row in reply[0]]
    if len(ids) != count:
        raise ValueError(
            f"sampler returned {len(ids)} responses to {len(given)} prompts with n={rollouts_per_prompt}: it must "
            f"return {count}, a prompt's responses next to each other."
        )
    ends = set(policy.ends)
    for row, response in enumerate(ids):
        _check_response(row, response, max_new_tokens, ends)
    log_probs = None if reply[1] is None else [[float(x) for x in row] for row in reply[1]]
    if log_probs is not None:
        _check_log_probs(ids, log_probs)
    tokens, mask = pad_right(ids)
    drawn = torch.zeros(tokens.shape)
    if log_probs is not None:
        drawn[mask] = torch.tensor([x for row in log_probs for x in row])
    policy.check_tokens(tokens, mask, "the sampler's responses")
    index = torch.arange(len(given)).repeat_interleave(rollouts_per_prompt)
    rollouts = Rollouts(
        prompt_ids=prompts[0].cpu()[index],
        prompt_mask=prompts[1].cpu()[index],
        tokens=tokens,
        mask=mask,
        finished=torch.tensor([row[-1] in ends for row in ids]),
        prompt_index=index,
        log_probs=drawn,
        policy=policy,
    ).to(device)
    return rollouts, check_behaviour(student, rollouts, stale=stale, **options)


def _check_response(row: int, tokens: list[int], limit: int, ends: set[int]) -> None:
    where = f"sampler's response {row}"
    if not tokens:
        raise ValueError(f"{where} is empty: a response has at least its end-of-sequence token.")
    if len(tokens) > limit:
        raise ValueError(f"{where} has {len(tokens)} tokens, more than max_new_tokens={limit}.")
    if min(tokens) < 0:
        raise ValueError(f"{where} has token id {min(tokens)}: ids are 0 or more.")
    early = next((place for place, token in enumerate(tokens[:-1]) if token in ends), None)
    if early is not None:
        raise ValueError(f"{where} goes on after its end, token {tokens[early]} at position {early}: cut it there.")
    if tokens[-1] not in ends and len(tokens) < limit:
        raise ValueError(
            f"{where} stops after {len(tokens)} of {limit} tokens without an end-of-sequence token "
            f"({', '.join(map(str, sorted(ends)))}): return the end too, and set no other stop or length."
        )


def _check_log_probs(ids: list[list[int]], log_probs: list[list[float]]) -> None:
    if [len(row) for row in log_probs] != [len(row) for row in ids]:
        raise ValueError("sampler must return one log-probability for each token of each response, or None.")
    for row, values in enumerate(log_probs):
        for place, value in enumerate(values):
            if not math.isfinite(value) or value > 1e-3:
                raise ValueError(
                    f"sampler's log-probability of response {row}, position {place} is {value:.4g}: it must be finite "
                    "and not above 0."
                )


def sampler_of(given: Any, model: str | None = None) -> Sampler | None:
    """A sampler from a callable or the address of an engine and its model; None from None.

    Raises:
        TypeError: neither.
    """
    if given is None:
        return None
    if isinstance(given, str):
        from kvar.rollouts.samplers.openai import OpenAISampler

        return OpenAISampler(given, model)
    if not callable(given):
        raise TypeError(
            "sampler must be a function (prompts, n, max_new_tokens, seed) -> (token ids, log-probabilities), or an "
            f"address such as http://host:8000/v1; got {type(given).__name__}."
        )
    sampler: Sampler = given
    return sampler
