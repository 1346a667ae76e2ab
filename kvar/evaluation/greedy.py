"""Greedy search for models that transformers does not decode correctly with a cache or padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kvar.rollouts import Policy, is_encoder_decoder
from kvar.rollouts.decoding.decoding import Decoding, decode
from kvar.rollouts.decoding.draw import check_finite
from kvar.rollouts.forward import decoder_prefix

__all__ = ["greedy_search"]


def greedy_search(
    model: Any,
    way: type[Decoding],
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    policy: Policy,
    *,
    max_new_tokens: int,
    processors: Sequence[Any] = (),
) -> list[list[int]]:
    """The most probable token at each step, after the processors.

    Args:
        model: in eval mode, under ``torch.no_grad``.
        way: an exact way to decode it, from :func:`kvar.rollouts.trial.truth.decoding_of`.
        prompt_ids: (N, S); processors see them, padding included, before the response of a causal model.
        prompt_mask: (N, S) bool.
        policy: actions and ends.
        max_new_tokens: length limit.
        processors: transformers' logits processors.

    Returns:
        N lists of tokens; tokens after an end are to be ignored.

    Raises:
        NonFiniteLogitsError: logits from which no token can be chosen.
    """
    given = decoder_prefix(model, policy, prompt_ids) if is_encoder_decoder(model) else prompt_ids

    def choose(scores: Tensor, rows: Tensor, so_far: Tensor) -> tuple[Tensor, Tensor]:
        check_finite(scores.amax(dim=-1), so_far.shape[1], rows)
        seen = torch.cat([given[rows], so_far], dim=1)
        for processor in processors:
            scores = processor(seen, scores)
        return scores.max(dim=-1)[::-1]

    decoding = way(model, prompt_ids, prompt_mask, 1, max_new_tokens, policy)
    rows: list[list[int]] = decode(decoding, choose, policy)[0].tolist()
    return rows
