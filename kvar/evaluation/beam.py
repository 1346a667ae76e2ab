"""Beam search from and to token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kvar.evaluation.greedy import greedy_search
from kvar.rollouts import Policy, is_encoder_decoder, policy_of
from kvar.rollouts.decoding.cached import CachedDecoding
from kvar.rollouts.decoding.draw import check_finite
from kvar.rollouts.forward import decoder_prefix, decoder_start, unwrapped
from kvar.rollouts.modes import eval_mode, undisturbed
from kvar.rollouts.output_embedding import logit_width
from kvar.rollouts.trial.truth import decoding_of

__all__ = ["beam_search"]


@torch.no_grad()
def beam_search(
    model: Any,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    tokenizer: Any,
    *,
    beams: int,
    max_new_tokens: int,
    processors: Sequence[Any] = (),
    policy: Policy | None = None,
) -> list[list[int]]:
    """The best response of beam search to every prompt, end-of-sequence included unless the length limit cut it.

    The model's generation defaults (penalties, length limits) are ignored, and tokens that are not actions of the
    policy (:class:`kvar.rollouts.Policy`) are never chosen.

    Args:
        model: seq2seq or causal; run in eval mode.
        prompt_ids: (N, S).
        prompt_mask: (N, S) bool.
        tokenizer: the model's.
        beams: number of beams; 1 is greedy search.
        max_new_tokens: length limit.
        processors: transformers' logits processors, such as ``kvar.evaluation.calculator_logits.Calculator``.
        policy: default that of model and tokenizer.

    Raises:
        NonFiniteLogitsError: logits from which no token can be chosen.
        ValueError: several beams of a model that is decoded exactly only in a slower way, or a model that is not
            decoded exactly at all (:mod:`kvar.rollouts.trial.truth`).
    """
    from transformers import GenerationConfig, LogitsProcessorList

    policy = policy_of(model, tokenizer) if policy is None else policy
    seq2seq = is_encoder_decoder(model)
    model = unwrapped(model)
    device = next(model.parameters()).device
    prompt_ids, prompt_mask = prompt_ids.to(device), prompt_mask.to(device)
    way = decoding_of(model, prompt_ids, prompt_mask, policy)
    if way is not CachedDecoding:
        if beams > 1:
            raise ValueError(
                f"beams={beams}: {type(model).__name__} gives wrong results with a cache or padding, which beam search "
                "needs. Set the number of beams to 1: greedy search decodes it exactly."
            )
        with undisturbed(model):
            rows = greedy_search(
                model, way, prompt_ids, prompt_mask, policy, max_new_tokens=max_new_tokens, processors=processors
            )
        return [_ended(row, policy) for row in rows]
    width = logit_width(model) or 0
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        num_beams=beams,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=list(policy.ends),
        decoder_start_token_id=decoder_start(model) if seq2seq else None,
        suppress_tokens=[*policy.forbidden, *range(policy.size or width, width)] or None,
        renormalize_logits=True,  # else the probabilities that rank beams include padding
    )
    if not seq2seq:  # generation needs prompts that are padded on the left
        order = torch.argsort(prompt_mask.int(), dim=1, stable=True)
        prompt_ids, prompt_mask = prompt_ids.gather(1, order), prompt_mask.gather(1, order)
    given = {"decoder_input_ids": decoder_prefix(model, policy, prompt_ids)} if seq2seq else {}
    start = given["decoder_input_ids"].shape[1] if seq2seq else prompt_ids.shape[1]
    kept, model.generation_config = model.generation_config, settings
    try:
        with eval_mode(model):
            out = model.generate(
                input_ids=prompt_ids,
                attention_mask=prompt_mask.long(),
                logits_processor=LogitsProcessorList([_Finite(beams, start), *processors, *_first(policy, start)]),
                synced_gpus=False,  # other processes decode nothing, or other prompts
                **given,
            )
    finally:
        model.generation_config = kept
    return [_ended(row, policy) for row in out[:, start:].tolist()]


def _first(policy: Policy, start: int) -> list[Any]:
    """The processor that keeps ``forbidden_first`` from the first position of a response."""
    from transformers import SuppressTokensAtBeginLogitsProcessor

    return [SuppressTokensAtBeginLogitsProcessor(list(policy.forbidden_first), start)] if policy.forbidden_first else []


def _ended(row: list[int], policy: Policy) -> list[int]:
    """A response up to and with its first end token."""
    end = next((place for place, token in enumerate(row) if token in policy.ends), len(row))
    return row[: end + 1]


class _Finite:
    """A logits processor that changes nothing and raises NonFiniteLogitsError for NaN and other unusable logits."""

    def __init__(self, beams: int, start: int) -> None:
        self.beams, self.start = beams, start

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        best = scores.amax(dim=-1).view(-1, self.beams).sum(dim=1)  # over a prompt's beams
        check_finite(best, input_ids.shape[1] - self.start)
        return scores
