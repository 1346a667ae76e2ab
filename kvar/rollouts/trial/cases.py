"""The prompts and tokens of a model's trial, and its logits for each prefix alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kvar.rollouts.forward import decoder_prefix, is_encoder_decoder
from kvar.rollouts.padding import pad_right
from kvar.rollouts.policy import Policy
from kvar.rollouts.types import Rollouts

__all__ = ["LONGEST", "STEPS", "Trial", "draws", "largest_difference", "make_trial", "tolerance"]

STEPS = 3
"""Tokens of a trial's responses; logits are compared before each."""
LONGEST = 64
"""Tokens of the longest prompt of a trial."""


@dataclass(frozen=True)
class Trial:
    """Three prompts of different lengths with given responses, and reference logits.

    Attributes:
        rollouts: (3, T) responses, tokens of the action set.
        truth: (3, T, V) logits over the actions, each row of them from a forward pass over one unpadded prefix.
        whole: (3, T, V) the same logits from one pass over each trajectory.
    """

    rollouts: Rollouts
    truth: Tensor
    whole: Tensor


def make_trial(model: Any, prompt_ids: Tensor, prompt_mask: Tensor, policy: Policy | None) -> Trial | None:
    """A trial from the first tokens of some prompts.

    Args:
        model: in eval mode, under ``torch.no_grad``.
        prompt_ids: (M, S) int64.
        prompt_mask: (M, S) bool.
        policy: the action set; None for all tokens.

    Returns:
        The trial; None where the logits are not finite, or all the same.
    """
    policy = Policy() if policy is None else policy
    prompts = _prompts(prompt_ids, prompt_mask, _room(model))
    first = _logits(model, prompts[1], prompts[1][:0], policy)[-1]
    tokens = _tokens(model, policy, first.shape[-1], prompt_ids.device)
    passes = [
        [_logits(model, p, row[:t], policy) for t in range(STEPS)] for p, row in zip(prompts, tokens, strict=True)
    ]
    ids, mask = (x.to(tokens.device) for x in pad_right(prompts))
    rollouts = Rollouts.of_tokens(ids, mask, tokens, policy=policy)
    truth = torch.stack([torch.stack([logits[-1] for logits in row]) for row in passes])
    whole = torch.stack([row[-1][len(row[-1]) - STEPS :] for row in passes])
    truth, whole = policy.restricted(truth), policy.restricted(whole)
    actions = truth[truth != -torch.inf]
    if not len(actions) or not bool(torch.isfinite(actions).all()) or bool((actions == actions[0]).all()):
        return None
    return Trial(rollouts, truth, whole)


def largest_difference(logits: Tensor, truth: Tensor) -> float:
    """Largest difference of log-probabilities; 0.0 if rounding explains it, infinity if actions differ.

    Args:
        logits: (..., V), minus infinity at tokens that are no actions.
        truth: the same shape; the tolerance is relative to the range of its logits.
    """
    actions = truth != -torch.inf
    if logits.shape != truth.shape or not bool(((logits != -torch.inf) == actions).all()):
        return float("inf")
    ours, theirs = (x.double().log_softmax(dim=-1)[actions] for x in (logits, truth))
    difference = float((ours - theirs).abs().max())
    spread = float(truth[actions].max() - truth[actions].min())
    return 0.0 if difference <= tolerance(truth) * (spread + 1e-2) else difference  # NaN is a difference


def draws(policy: Policy | None, token: Any) -> bool:
    """Whether ``token`` can stand inside a response: an action, and no end."""
    if not isinstance(token, int) or token < 0:
        return False
    if policy is None:
        return True
    return token not in (*policy.forbidden, *policy.ends) and (policy.size is None or token < policy.size)


def _logits(model: Any, prompt: Tensor, response: Tensor, policy: Policy) -> Tensor:
    """(L, V) logits of a forward pass over one prompt and response, unpadded and without a cache."""
    ids, given = prompt[None], {}
    if is_encoder_decoder(model):
        given["decoder_input_ids"] = torch.cat([decoder_prefix(model, policy, ids), response[None]], dim=1)
    else:
        ids = torch.cat([prompt, response])[None]
    logits: Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **given).logits
    return logits[0]


def _room(model: Any) -> int:
    """Length of the longest prompt that leaves positions for the response."""
    limit = getattr(model.config, "max_position_embeddings", None)
    if is_encoder_decoder(model) or not isinstance(limit, int) or limit <= 0:
        return LONGEST
    return max(min(LONGEST, limit - STEPS - 2), 3)  # RoBERTa and others count positions from two on


def _prompts(prompt_ids: Tensor, prompt_mask: Tensor, most: int) -> list[Tensor]:
    """Beginnings of three prompts: of the length of the longest, of two tokens, and of three."""
    rows = sorted((ids[mask] for ids, mask in zip(prompt_ids, prompt_mask, strict=True)), key=len, reverse=True)[:64]
    longest = min(max(len(rows[0]), 5), most)
    chosen = (rows[0], rows[len(rows) // 2], rows[-1])
    return [_cut(row, rows[0], length) for row, length in zip(chosen, (longest, 2, 3), strict=True)]


def _cut(row: Tensor, longest: Tensor, length: int) -> Tensor:
    row = torch.cat([row, longest])
    return row.repeat(-(-length // max(len(row), 1)))[:length]


def _tokens(model: Any, policy: Policy, width: int, device: torch.device) -> Tensor:
    """(3, T) tokens of the action set, with the padding token among them if it can be drawn."""
    size = min(width, policy.size or width)
    config = model.config
    named = {
        t for name in dir(config) if name.endswith(("token_id", "token_index")) for t in _ids(getattr(config, name))
    }
    range_ = range(size) if size <= 64 else torch.linspace(size // 5, size - 1, 64).long().tolist()
    drawn = [token for token in range_ if draws(policy, token)] or [0]
    plain = [token for token in drawn if token not in named] or drawn
    tokens = torch.tensor([plain[7 * i % len(plain)] for i in range(3 * STEPS)]).view(3, STEPS)
    pad: Any = getattr(config, "pad_token_id", None)
    if draws(policy, pad) and pad < size and pad not in _ids(getattr(config, "eos_token_id", None)):
        tokens[0, 0] = tokens[1, 1] = pad
    return tokens.to(device)


def _ids(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def tolerance(logits: Tensor) -> float:
    """The allowed rounding error, relative to the logits' range."""
    if logits.dtype == torch.float64:
        return 1e-5  # some parts compute in float32 whatever the weights are
    coarse = logits.dtype != torch.float32 or torch.is_autocast_enabled(logits.device.type)
    return 5e-2 if coarse else 1e-2 if logits.device.type == "cuda" and _tf32() else 1e-4


def _tf32() -> bool:
    """Whether CUDA's products of float32 matrices are rounded to TF32, however that was set.

    ``allow_tf32`` raises RuntimeError where the precision was set by ``fp32_precision``, which says both, but which
    older versions of torch do not have.
    """
    matmul = torch.backends.cuda.matmul
    precision = getattr(matmul, "fp32_precision", None)
    return matmul.allow_tf32 if precision is None else precision == "tf32"
