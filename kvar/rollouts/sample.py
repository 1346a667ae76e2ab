"""Sampling responses from a language model, with the behaviour probability of every token."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kvar.rollouts.forward import decoder_start, is_encoder_decoder, pack_left
from kvar.rollouts.types import Rollouts

__all__ = ["encode_prompts", "sample"]

Prompts = Sequence[str] | Sequence[Sequence[int]] | Mapping[str, Tensor] | tuple[Tensor, Tensor] | Tensor


def encode_prompts(prompts: Prompts, tokenizer: Any = None) -> tuple[Tensor, Tensor]:
    """Prompts as ids and mask.

    Args:
        prompts: M texts; or M lists of token ids; or (prompt_ids (M, S), prompt_mask (M, S)); or what a tokenizer
            returns (``input_ids`` and ``attention_mask``); or ids (M, S) without any padding.
        tokenizer: needed for texts; called as transformers tokenizers are, special tokens included.

    Returns:
        (M, S) int64 ids and (M, S) bool mask; texts and lists are padded on the right.

    Raises:
        ValueError: no prompts, texts without a tokenizer, or a tokenizer without a pad token.
    """
    if len(prompts) == 0:
        raise ValueError("prompts is empty: give at least one prompt.")
    if isinstance(prompts, Mapping):
        prompts = (prompts["input_ids"], prompts["attention_mask"])
    if isinstance(prompts, Tensor):
        prompts = (prompts, torch.ones_like(prompts, dtype=torch.bool))
    if isinstance(prompts, tuple) and len(prompts) == 2 and isinstance(prompts[0], Tensor) and prompts[0].dim() == 2:
        ids, mask = prompts[0], prompts[1].bool()
        if len(ids) == 0:
            raise ValueError("prompts is empty: give at least one prompt.")
        return ids, mask
    if not isinstance(prompts[0], str):
        return _pad_right([torch.as_tensor(ids, dtype=torch.long) for ids in prompts])
    if tokenizer is None:
        raise ValueError("prompts are texts, so a tokenizer is needed: pass tokenizer=, or (prompt_ids, prompt_mask).")
    if tokenizer.pad_token_id is None:
        raise ValueError("tokenizer.pad_token is None: set it (tokenizer.pad_token = tokenizer.eos_token will do).")
    encoded = tokenizer(list(prompts), padding=True, return_tensors="pt", padding_side="right")
    return encoded["input_ids"], encoded["attention_mask"].bool()


def _pad_right(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(max(int(lengths.max()), 1)) < lengths[:, None]
    ids = torch.zeros(mask.shape, dtype=torch.long)
    ids[mask] = torch.cat(rows)
    return ids, mask


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
    eos_token_id: int | None = None,
    vocabulary: int | None = None,
) -> Rollouts:
    """Sample ``rollouts_per_prompt`` responses to every prompt, with dropout off.

    The loop is kvar's own, not ``generate``: nothing of a model's generation config (penalties, forced tokens, beams)
    can change the policy unseen, the flags given here are the ones used, and one seed gives one set of responses
    whatever the global random state, which stays untouched.

    Args:
        student: seq2seq or causal transformers model.
        prompts: M prompts in any form that :func:`encode_prompts` takes.
        tokenizer: the student's tokenizer.
        rollouts_per_prompt: R; the result has N = M R rows, a prompt's rows next to each other.
        max_new_tokens: length limit T; responses without end-of-sequence by then are cut (``finished`` false).
        temperature: logits are divided by it; 0 takes the most probable token (log-probability 0).
        top_k: sample among the k most probable tokens only; 0 for all.
        seed: seed of this call's own random stream; or N = M R seeds, one a response, which then depends on its own
            seed alone, whatever else is in the batch.
        eos_token_id: end-of-sequence; default the tokenizer's, else the model config's.
        vocabulary: draw among the first this many tokens only: the tokenizer's size, where the embedding matrix was
            padded to a rounder number and the teacher's to another. None for all.

    Returns:
        Rollouts with ``log_probs`` of the behaviour policy, that is after temperature and top-k.

    Raises:
        ValueError: a setting out of range, an empty prompt set, no end-of-sequence token.
    """
    _check_settings(rollouts_per_prompt, max_new_tokens, temperature, top_k)
    eos = _end_of_sequence(student, tokenizer, eos_token_id)
    device = next(student.parameters()).device
    prompt_ids, prompt_mask = (x.to(device) for x in encode_prompts(prompts, tokenizer))
    prompt_index = torch.arange(len(prompt_ids), device=device).repeat_interleave(rollouts_per_prompt)
    prompt_ids, prompt_mask = prompt_ids[prompt_index], prompt_mask[prompt_index]
    pad = _pad_token(student, tokenizer)
    source = _random_source(seed, len(prompt_ids), max_new_tokens, device)
    modes = [(module, module.training) for module in student.modules()]
    student.eval()
    try:
        step = _seq2seq_steps if is_encoder_decoder(student) else _causal_steps
        tokens, log_probs = _loop(
            step(student, prompt_ids, prompt_mask), max_new_tokens, eos, pad, temperature, top_k, vocabulary, source
        )
    finally:
        for module, training in modes:
            module.training = training
    ended = (tokens == eos).cumsum(dim=1)
    mask = (ended - (tokens == eos).long()) == 0
    finished = ended[:, -1] > 0
    tokens = torch.where(mask, tokens, pad)
    return Rollouts(
        prompt_ids=prompt_ids,
        prompt_mask=prompt_mask,
        tokens=tokens,
        mask=mask,
        finished=finished,
        prompt_index=prompt_index,
        log_probs=torch.where(mask, log_probs, 0.0),
    )


def _loop(
    steps: Any,
    max_new_tokens: int,
    eos: int,
    pad: int,
    temperature: float,
    top_k: int,
    vocabulary: int | None,
    source: torch.Generator | Tensor,
) -> tuple[Tensor, Tensor]:
    logits = next(steps)
    done = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    tokens, log_probs = [], []
    for position in range(max_new_tokens):
        chance = source if isinstance(source, torch.Generator) else source[:, position]
        token, log_prob = _draw(logits[:, :vocabulary].float(), temperature, top_k, chance)
        token = torch.where(done, pad, token)
        tokens.append(token)
        log_probs.append(log_prob)
        done = done | (token == eos)
        if bool(done.all()) or position == max_new_tokens - 1:
            break
        logits = steps.send(token)
    return torch.stack(tokens, dim=1), torch.stack(log_probs, dim=1)


def _random_source(
    seed: int | Sequence[int], rows: int, max_new_tokens: int, device: torch.device
) -> torch.Generator | Tensor:
    """One generator for all rows; or, for a seed a row, uniform numbers (rows, max_new_tokens), a stream for each."""
    if isinstance(seed, int):
        return torch.Generator(device=device).manual_seed(seed)
    if len(seed) != rows:
        raise ValueError(f"seed must be one integer or one for each of the {rows} responses; got {len(seed)} seeds.")
    streams = [
        torch.rand(max_new_tokens, generator=torch.Generator().manual_seed(one), dtype=torch.float64) for one in seed
    ]
    return torch.stack(streams).to(device)


def _draw(logits: Tensor, temperature: float, top_k: int, source: torch.Generator | Tensor) -> tuple[Tensor, Tensor]:
    """One token a row and its log-probability under the policy that drew it; by inversion where given uniforms (N,)."""
    if temperature == 0:
        token = logits.argmax(dim=-1)
        return token, torch.zeros_like(logits[:, 0])
    logits = logits / temperature
    if 0 < top_k < logits.shape[-1]:
        best, where = logits.topk(top_k, dim=-1)
        logits = torch.full_like(logits, -torch.inf).scatter(-1, where, best)
    log_p = logits.log_softmax(dim=-1)
    if isinstance(source, torch.Generator):
        token = torch.multinomial(log_p.exp(), 1, generator=source)
    else:
        below = log_p.exp().cumsum(dim=-1, dtype=torch.float64)
        token = torch.searchsorted(below, source[:, None] * below[:, -1:], right=True)
    return token[:, 0], log_p.gather(-1, token)[:, 0]


def _seq2seq_steps(model: Any, prompt_ids: Tensor, prompt_mask: Tensor) -> Any:
    """Generator: yields next-token logits (N, V), is sent the drawn tokens (N,)."""
    prompt_ids, prompt_mask = pack_left(prompt_ids, prompt_mask)
    attention = prompt_mask.long()
    encoded = model.get_encoder()(input_ids=prompt_ids, attention_mask=attention)
    token = torch.full_like(prompt_ids[:, 0], decoder_start(model))
    cache = None
    while True:
        out = model(
            encoder_outputs=encoded,
            attention_mask=attention,
            decoder_input_ids=token[:, None],
            past_key_values=cache,
            use_cache=True,
        )
        cache = out.past_key_values
        token = yield out.logits[:, -1]


def _causal_steps(model: Any, prompt_ids: Tensor, prompt_mask: Tensor) -> Any:
    """Generator as ``_seq2seq_steps``; prompts are padded on the left so that all rows end together."""
    if int(prompt_mask.sum(dim=1).min()) == 0:
        raise ValueError("prompts holds an empty prompt: a causal model needs one prompt token (for example BOS).")
    order = torch.argsort(prompt_mask.int(), dim=1, stable=True)
    ids, attention = prompt_ids.gather(1, order), prompt_mask.gather(1, order).long()
    takes = inspect.signature(model.forward).parameters
    cache = None
    while True:
        kwargs: dict[str, Any] = {}
        if "position_ids" in takes:
            kwargs["position_ids"] = (attention.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        if "logits_to_keep" in takes:
            kwargs["logits_to_keep"] = 1
        out = model(input_ids=ids, attention_mask=attention, past_key_values=cache, use_cache=True, **kwargs)
        cache = out.past_key_values
        token = yield out.logits[:, -1]
        ids = token[:, None]
        attention = torch.cat([attention, torch.ones_like(ids)], dim=1)


def _check_settings(rollouts_per_prompt: int, max_new_tokens: int, temperature: float, top_k: int) -> None:
    for name, value, least in (
        ("rollouts_per_prompt", rollouts_per_prompt, 1),
        ("max_new_tokens", max_new_tokens, 1),
        ("top_k", top_k, 0),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}; got {value!r}.")
    if not temperature >= 0:
        raise ValueError(f"temperature must be 0 (greedy) or positive; got {temperature!r}.")


def _end_of_sequence(model: Any, tokenizer: Any, given: int | None) -> int:
    for value in (given, getattr(tokenizer, "eos_token_id", None), getattr(model.config, "eos_token_id", None)):
        if value is not None:
            return int(value[0] if isinstance(value, list) else value)
    raise ValueError("no end-of-sequence token: set tokenizer.eos_token, config.eos_token_id or pass eos_token_id=.")


def _pad_token(model: Any, tokenizer: Any) -> int:
    for value in (getattr(tokenizer, "pad_token_id", None), getattr(model.config, "pad_token_id", None)):
        if value is not None:
            return int(value)
    return 0
