"""Sampling responses from a language model, with the behaviour probability of every token."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kvar.rollouts.decoding.cached import CachedDecoding
from kvar.rollouts.decoding.decoding import decode
from kvar.rollouts.decoding.draw import draw, uniforms
from kvar.rollouts.modes import check_module, eval_mode
from kvar.rollouts.policy import Policy, policy_of
from kvar.rollouts.sharded import given_whole
from kvar.rollouts.text.prompts import Prompts, encode_prompts
from kvar.rollouts.trial.truth import check_rollouts, decoding_of
from kvar.rollouts.types import Rollouts
from kvar.rollouts.vocabulary import check_tokenizer, pad_token

__all__ = ["sample"]


@given_whole("student")
@torch.no_grad()
def sample(
    student: nn.Module,
    prompts: Prompts,
    tokenizer: Any = None,
    *,
    rollouts_per_prompt: int = 1,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int = 0,
    seed: int | Sequence[int] = 0,
    eos_token_id: int | Sequence[int] | None = None,
    vocabulary: int | None = None,
    policy: Policy | None = None,
    check: bool = True,
) -> Rollouts:
    """Sample ``rollouts_per_prompt`` responses to every prompt, with dropout off.

    Unlike ``generate``, only hard constraints of a model's generation config apply (end tokens, tokens that are never
    emitted, forced first tokens; see :func:`kvar.rollouts.policy_of`): no penalty or beam changes the policy, and the
    arguments are the only settings. A seed determines the responses; the global random state is neither used nor
    changed.

    Args:
        student: seq2seq or causal transformers model, also in a wrapper or sharded (:func:`kvar.rollouts.whole`).
        prompts: M prompts in any form that :func:`kvar.rollouts.encode_prompts` takes.
        tokenizer: the student's tokenizer.
        rollouts_per_prompt: R; the result has N = M R rows, a prompt's rows next to each other.
        max_new_tokens: length limit T; responses without end-of-sequence within it are cut (``finished`` false).
        temperature: logits are divided by it; 0 takes the most probable token (log-probability 0).
        top_k: sample among the k most probable tokens only; 0 for all.
        seed: seed of this call's random stream; or N = M R seeds, one per response, which then depends on its seed
            only, not on the rest of the batch.
        eos_token_id: end-of-sequence tokens; default the tokenizer's and the generation config's.
        vocabulary: draw among the first this many tokens only; default the tokenizer's size, or all without one.
        policy: the action set, in place of that of model, tokenizer and the two arguments before.
        check: at first use of a model, compare decoding with fresh forward passes on a few tokens; if they differ, a
            slower exact way is taken with a warning (:mod:`kvar.rollouts.trial.truth`).

    Returns:
        Rollouts with their policy, and ``log_probs`` of the behaviour policy, that is after temperature and top-k.

    Raises:
        TypeError: the student is not a module.
        ValueError: a setting out of range, an empty prompt set, no end-of-sequence token; logits that are NaN or
            infinite (``NonFiniteLogitsError``); a model that is not causal, or whose rows depend on batch or length.
    """
    check_module(student)
    _check_settings(rollouts_per_prompt, max_new_tokens, temperature, top_k)
    check_tokenizer(tokenizer)
    if policy is None:
        policy = policy_of(student, tokenizer, vocabulary=vocabulary, eos_token_id=eos_token_id)
    device = next(student.parameters()).device
    prompt_ids, prompt_mask = (x.to(device) for x in encode_prompts(prompts, tokenizer, student, policy=policy))
    prompt_index = torch.arange(len(prompt_ids), device=device).repeat_interleave(rollouts_per_prompt)
    way = decoding_of(student, prompt_ids, prompt_mask, policy) if check else CachedDecoding
    pad = pad_token(tokenizer, student) or 0
    chance = uniforms(seed, len(prompt_index), max_new_tokens).to(device)

    def choose(logits: Tensor, rows: Tensor, so_far: Tensor) -> tuple[Tensor, Tensor]:
        position = so_far.shape[1]
        return draw(logits.float(), temperature, top_k, chance[rows, position], position, rows)

    with eval_mode(student):
        decoding = way(student, prompt_ids, prompt_mask, rollouts_per_prompt, max_new_tokens, policy)
        tokens, log_probs = decode(decoding, choose, policy)
    is_end = policy.is_end(tokens)
    ended = is_end.cumsum(dim=1)
    mask = (ended - is_end.long()) == 0
    finished = ended[:, -1] > 0
    tokens = torch.where(mask, tokens, pad)
    rollouts = Rollouts(
        prompt_ids=prompt_ids[prompt_index],
        prompt_mask=prompt_mask[prompt_index],
        tokens=tokens,
        mask=mask,
        finished=finished,
        prompt_index=prompt_index,
        log_probs=torch.where(mask, log_probs, 0.0),
        policy=policy,
    )
    if check:
        check_rollouts(student, rollouts, drawn=temperature == 1 and top_k == 0)
    return rollouts


def _check_settings(rollouts_per_prompt: Any, max_new_tokens: Any, temperature: Any, top_k: Any) -> None:
    for name, value, least in (
        ("rollouts_per_prompt", rollouts_per_prompt, 1),
        ("max_new_tokens", max_new_tokens, 1),
        ("top_k", top_k, 0),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}; got {value!r}.")
    if not (isinstance(temperature, numbers.Real) and float(temperature) >= 0):
        raise ValueError(f"temperature must be 0 (greedy) or positive; got {temperature!r}.")
