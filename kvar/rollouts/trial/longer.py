"""The trial of a model at the length of real rollouts: what changes with length shows there only.

Positions that stretch past a length (dynamic and long RoPE), experts of limited capacity and indexers that keep some
tokens agree on short text. So the longest and the shortest of some rollouts are read alone, together and up to a
prefix, once a model and power of two of the length.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from kvar.rollouts.forward import is_encoder_decoder, token_logits, unwrapped
from kvar.rollouts.modes import undisturbed
from kvar.rollouts.trial.cases import LONGEST, tolerance
from kvar.rollouts.types import Rollouts

__all__ = ["check_length"]

MAX_LOGITS = 2**26
"""Most logits of one row that are looked at; longer responses are cut there."""
_PASSED: WeakKeyDictionary[nn.Module, set[tuple[Any, ...]]] = WeakKeyDictionary()


def check_length(model: nn.Module, rollouts: Rollouts, key: tuple[Any, ...], *, drawn: bool) -> None:
    """Refuse a model whose log-probabilities of these rollouts depend on what stands beside or behind a token.

    Args:
        model: of transformers.
        rollouts: N responses; short ones (64 tokens with their prompts) are left to the short trial.
        key: what else than the weights the logits depend on.
        drawn: whether ``rollouts.log_probs`` are the model's own, to be compared as well.

    Raises:
        ValueError: what differs, and by how much.
    """
    if not len(rollouts):
        return
    prompts, responses = rollouts.prompt_mask.sum(dim=1), rollouts.lengths
    sizes = torch.maximum(prompts, responses) if is_encoder_decoder(model) else prompts + responses
    longest, shortest = int(sizes.argmax()), int(sizes.argmin())
    mark = (*key, int(sizes[longest]).bit_length(), drawn)
    passed = _PASSED.setdefault(model, set())
    if int(sizes[longest]) <= LONGEST or mark in passed or int(responses[longest]) == 0:
        return
    device = next(model.parameters()).device
    with undisturbed(model), torch.no_grad():
        rows = [_alone(rollouts[[i]].to(device), _width(model)) for i in (longest, shortest)]
        together = _log_probs(model, _beside(rollouts[[longest, shortest]].to(device), rows[0].tokens.shape[1]))[0]
        for place, row in enumerate(rows):
            if not row.tokens.shape[1]:
                continue
            alone, allowed = _log_probs(model, row)
            if not bool(torch.isfinite(alone).all()):
                return  # another check's to tell
            for length in {1, (row.tokens.shape[1] + 1) // 2}:
                prefix = _log_probs(model, _cut(row, length))[0]
                _compare(model, prefix[:, -1:], alone[:, length - 1 : length], allowed, "when later tokens follow")
            width = min(together.shape[1], alone.shape[1])
            _compare(model, together[place : place + 1, :width], alone[:, :width], allowed, "in a padded batch")
            if drawn:
                # they are kept in float32
                _compare(model, row.log_probs.to(alone), alone, max(allowed, 1e-4), "while it is sampled")
    passed.add(mark)


def _compare(model: Any, ours: Tensor, theirs: Tensor, allowed: float, when: str) -> None:
    difference = float((ours.double() - theirs.double()).abs().max())
    if difference > allowed:
        raise ValueError(
            f"{type(unwrapped(model)).__name__} is refused at this length: a token's log-probability changes by "
            f"{difference:.2g} {when}, so its policy is not one distribution (positions scaled by length, experts of "
            "limited capacity, or tokens left out of attention). Use shorter prompts and max_new_tokens, or a config "
            "without these."
        )


def _log_probs(model: nn.Module, rollouts: Rollouts) -> tuple[Tensor, float]:
    """(N, T) log pi(y_t | s_t), and the difference that rounding may make."""
    logits = token_logits(model, rollouts)
    wide = logits if logits.dtype == torch.float64 else logits.float()
    actions = wide[wide != -torch.inf]
    spread = float(actions.max() - actions.min()) if len(actions) else 0.0
    tokens = rollouts.tokens.masked_fill(~rollouts.mask, 0)[..., None]
    picked = (wide.gather(-1, tokens)[..., 0] - wide.logsumexp(dim=-1)).masked_fill(~rollouts.mask, 0.0)
    return picked, tolerance(logits) * (spread + 1e-2)


def _alone(row: Rollouts, width: int) -> Rollouts:
    """One row without padding, its response cut where its logits would be too many."""
    kept = row.prompt_mask[0]
    row = replace(row, prompt_ids=row.prompt_ids[:, kept], prompt_mask=row.prompt_mask[:, kept])
    return _cut(row, min(int(row.lengths[0]), max(MAX_LOGITS // width, 4)))


def _beside(pair: Rollouts, length: int) -> Rollouts:
    return _cut(pair, max(min(int(pair.lengths.max()), length), 1))


def _cut(rows: Rollouts, length: int) -> Rollouts:
    return replace(
        rows, tokens=rows.tokens[:, :length], mask=rows.mask[:, :length], log_probs=rows.log_probs[:, :length]
    )


def _width(model: Any) -> int:
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    weight = getattr(head, "weight", None)
    return len(weight) if weight is not None else int(getattr(model.config, "vocab_size", None) or 1)
