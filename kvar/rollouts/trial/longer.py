"""The trial of a model at the length of real rollouts.

Positions that are rescaled beyond a length (dynamic and long RoPE), experts of limited capacity and indexers that keep
some tokens are consistent on short text only. So the longest and the shortest of some rollouts are read alone, together
and up to a prefix, once per model and power of two of the length.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from kvar.rollouts.forward import chosen_log_probs, is_encoder_decoder, token_logits, unwrapped
from kvar.rollouts.modes import undisturbed
from kvar.rollouts.output_embedding import logit_width
from kvar.rollouts.trial.cases import LONGEST, tolerance
from kvar.rollouts.types import Rollouts

__all__ = ["check_length"]

MAX_LOGITS = 2**26
"""Most logits of one row in a trial; longer responses are cut."""
_PASSED: WeakKeyDictionary[nn.Module, set[tuple[Any, ...]]] = WeakKeyDictionary()


def check_length(model: nn.Module, rollouts: Rollouts, key: tuple[Any, ...], *, drawn: bool) -> None:
    """Refuse a model whose log-probabilities of these rollouts depend on other rows or on later tokens.

    Args:
        model: of transformers.
        rollouts: N responses; if none exceeds 64 tokens with its prompt, the short trial is enough.
        key: what the logits depend on besides the weights.
        drawn: whether ``rollouts.log_probs`` are the model's, to be compared as well.

    Raises:
        ValueError: says what differs, and by how much.
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
        rows = [_alone(rollouts[[i]].to(device), logit_width(model) or 1) for i in (longest, shortest)]
        pair = rollouts[[longest, shortest]].to(device)
        pair = pair.until(max(min(int(pair.lengths.max()), rows[0].tokens.shape[1]), 1))
        together = _log_probs(model, pair)[0]
        for place, row in enumerate(rows):
            if not row.tokens.shape[1]:
                continue
            alone, allowed = _log_probs(model, row)
            if not bool(torch.isfinite(alone).all()):
                return  # another check reports this
            for length in {1, (row.tokens.shape[1] + 1) // 2}:
                prefix = _log_probs(model, row.until(length))[0]
                _compare(model, prefix[:, -1:], alone[:, length - 1 : length], allowed, "when later tokens follow")
            width = min(together.shape[1], alone.shape[1])
            _compare(model, together[place : place + 1, :width], alone[:, :width], allowed, "in a padded batch")
            if drawn:
                # log_probs are kept in float32
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
    """(N, T) log pi(y_t | s_t), and the allowed rounding error."""
    logits = token_logits(model, rollouts)
    actions = logits[logits != -torch.inf]
    spread = float(actions.max() - actions.min()) if len(actions) else 0.0
    return chosen_log_probs(logits, rollouts), tolerance(logits) * (spread + 1e-2)


def _alone(row: Rollouts, width: int) -> Rollouts:
    """One row without padding, its response cut so that it has at most ``MAX_LOGITS`` logits."""
    kept = row.prompt_mask[0]
    row = replace(row, prompt_ids=row.prompt_ids[:, kept], prompt_mask=row.prompt_mask[:, kept])
    return row.until(min(int(row.lengths[0]), max(MAX_LOGITS // width, 4)))
