"""The data's responses as rollouts, in the tokens that a model would have emitted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from kvar.rollouts.policy import Policy, policy_of
from kvar.rollouts.text.conversations import is_conversation
from kvar.rollouts.text.encoder import Prompt, TextEncoder
from kvar.rollouts.text.prompts import Prompts, encode_prompts
from kvar.rollouts.types import Rollouts

__all__ = ["references"]


def references(
    prompts: Sequence[Prompt] | Prompts,
    targets: Sequence[Any],
    tokenizer: Any,
    model: Any,
    *,
    max_new_tokens: int | None = None,
    policy: Policy | None = None,
) -> Rollouts:
    """One rollout per reference; ``prompt_index`` is the prompt's index in ``prompts``.

    Args:
        prompts: M texts or conversations, or in any other form that :func:`kvar.rollouts.encode_prompts` takes.
        targets: the M references: texts, or the assistant's messages to conversations.
        tokenizer: of the model.
        model: seq2seq or causal; determines the special tokens around texts (:class:`kvar.rollouts.TextEncoder`).
        max_new_tokens: T; longer references are cut and count as unfinished. None keeps them whole.
        policy: the action set, that of the sampled rollouts they are compared with; default that of model and
            tokenizer.

    Returns:
        M rollouts with ``log_probs`` 0, since no policy drew them.

    Raises:
        ValueError: different numbers of targets and prompts, texts that cannot be encoded, or a reference with a token
            outside the action set.
    """
    if isinstance(targets, str) or not isinstance(targets, Sequence):
        raise ValueError(f"references must be a list of one response a prompt; got {type(targets).__name__}.")
    if max_new_tokens is not None and max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1; got {max_new_tokens}.")
    policy = policy_of(model, tokenizer) if policy is None else policy
    encoder = TextEncoder(tokenizer, model, policy)
    count = len(prompts[0] if isinstance(prompts, tuple) else prompts)
    if count != len(targets):
        raise ValueError(f"references: {len(targets)} for {count} prompts; give one for each.")
    if isinstance(prompts, Sequence) and (isinstance(prompts[0], str) or is_conversation(prompts[0])):
        prompts, responses = encoder.pairs(prompts, targets, "references row")  # type: ignore[arg-type]
    else:
        responses = encoder.targets(list(targets), "references row")
    ids, prompt_mask = encode_prompts(prompts, tokenizer, model, policy=policy)
    tokens, mask = encode_prompts([row[:max_new_tokens] for row in responses])
    policy.check_tokens(tokens, mask)
    whole = [max_new_tokens is None or len(row) <= max_new_tokens for row in responses]
    return Rollouts(
        prompt_ids=ids,
        prompt_mask=prompt_mask,
        tokens=tokens,
        mask=mask,
        finished=torch.tensor(whole),
        prompt_index=torch.arange(count),
        log_probs=torch.zeros(mask.shape),
        policy=policy,
    )
