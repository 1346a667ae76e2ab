"""Scoring rollouts: the teacher's values, the student's log-probabilities."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from kvar.returns import TokenValues, token_values
from kvar.rollouts.forward import chosen_log_probs, token_logits
from kvar.rollouts.head import separable, token_logit_chunks
from kvar.rollouts.modes import eval_mode
from kvar.rollouts.output_embedding import logit_width
from kvar.rollouts.policy import Policy, forbidden_by
from kvar.rollouts.sharded import given_whole
from kvar.rollouts.trial.truth import check_rollouts
from kvar.rollouts.types import Rollouts

__all__ = ["log_probs", "score"]

MAX_LOGITS = 2**25


@given_whole("teacher")
@torch.no_grad()
def score(
    teacher: nn.Module,
    rollouts: Rollouts,
    *,
    centre: Literal["mean", "logsumexp", "none"] = "mean",
    value: Literal["max", "soft"] = "max",
    vocabulary: int | None = None,
    micro_batch: int | None = None,
    max_logits: int = MAX_LOGITS,
    check: bool = True,
) -> TokenValues:
    """Teacher values (q_t, V_t) of every response token from one forward pass without gradient; theory.md (1).

    Where a pass would make more than ``max_logits`` logits, hidden states are computed once and the output head is
    applied to some tokens at a time (padding is left out). A model without a separable head takes fewer rows
    at a time instead, one at least. Values are the same up to rounding.

    Args:
        teacher: seq2seq or causal model with the student's tokenizer; as the student of :func:`kvar.rollouts.sample`.
        rollouts: N responses of T tokens at most.
        centre: see ``kvar.returns.token_values``.
        value: see ``kvar.returns.token_values``.
        vocabulary: score over the first this many tokens at most. Means and maxima are always over the rollouts' action
            set, without tokens that the teacher never emits (:class:`kvar.rollouts.Policy`).
        micro_batch: most rows of a forward pass; None for all.
        max_logits: most logits in memory at a time; the default's 2**25 take 128 MiB in float32.
        check: at first use, compare the forward pass with one for each prefix (:mod:`kvar.rollouts.trial.truth`).

    Returns:
        TokenValues of shape (N, T), zero where masked, on the rollouts' device.

    Raises:
        ValueError: a response token outside the action set or the teacher's vocabulary, non-finite logits, a
            ``micro_batch`` or ``max_logits`` below 1; a model that is not causal, or whose rows depend on their batch.
    """
    for name, given in (("micro_batch", micro_batch), ("max_logits", max_logits)):
        if given is not None and given < 1:
            raise ValueError(f"{name} must be at least 1; got {given}.")
    rollouts = rollouts.over(vocabulary)
    refused = forbidden_by(teacher)
    if refused.forbidden or refused.forbidden_first:
        rollouts = replace(rollouts, policy=(rollouts.policy or Policy()).joined(refused))
    if rollouts.policy is not None:
        rollouts.policy.check_tokens(rollouts.tokens, rollouts.mask)
    device = next(teacher.parameters()).device
    if check:
        check_rollouts(teacher, rollouts)
    steps = rollouts.tokens.shape[1] * (logit_width(teacher) or 1)
    size = micro_batch or max(len(rollouts), 1)
    parts = []
    with eval_mode(teacher):
        chunked = len(rollouts) and min(size, len(rollouts)) * steps > max_logits
        whole = chunked and separable(teacher, rollouts[:1].to(device))
        if chunked and not whole:
            size = min(size, max(1, max_logits // steps))
        for start in range(0, max(len(rollouts), 1), size):
            rows = rollouts[start : start + size].to(device)
            if whole:
                parts.append(_chunked_values(teacher, rows, max_logits, centre, value))
                continue
            logits = token_logits(teacher, rows)
            parts.append(token_values(logits, rows.tokens, rows.mask, centre=centre, value=value))
    where = rollouts.tokens.device
    return TokenValues(torch.cat([p.q for p in parts]).to(where), torch.cat([p.v for p in parts]).to(where))


def _chunked_values(
    teacher: nn.Module,
    rollouts: Rollouts,
    max_logits: int,
    centre: Literal["mean", "logsumexp", "none"],
    value: Literal["max", "soft"],
) -> TokenValues:
    q, v = [], []
    with closing(token_logit_chunks(teacher, rollouts, max_logits)) as chunks:
        for (rows, positions), logits in chunks:
            tokens = rollouts.tokens[rows, positions][:, None]
            try:
                part = token_values(logits[:, None], tokens, torch.ones_like(tokens), centre, value)
            except ValueError as error:
                first, last = ((int(rows[i]), int(positions[i])) for i in (0, -1))
                raise ValueError(
                    f"between response {first[0]}, position {first[1]} and response {last[0]}, position {last[1]} "
                    f"(rows counted from the first of these): {error}"
                ) from error
            q.append(part.q[:, 0])
            v.append(part.v[:, 0])
    out = [torch.zeros(rollouts.mask.shape, dtype=x[0].dtype, device=x[0].device) for x in (q, v)]
    for filled, chunk in zip(out, (q, v), strict=True):
        filled[rollouts.mask] = torch.cat(chunk)
    return TokenValues(*out)


def log_probs(student: nn.Module, rollouts: Rollouts, *, vocabulary: int | None = None, check: bool = True) -> Tensor:
    """Log pi(y_t | s_t) of every response token under ``student``, with gradient.

    Args:
        student: seq2seq or causal model, in its current training mode.
        rollouts: N responses of T tokens at most.
        vocabulary: normalise over the first this many tokens at most; default the rollouts' action set.
        check: at first use, compare the forward pass with one for each prefix (:mod:`kvar.rollouts.trial.truth`).

    Returns:
        (N, T), zero where masked. No temperature and no top-k: these belong to the behaviour policy.

    Raises:
        ValueError: a token outside the action set; a model that is not causal, or whose rows depend on their batch.
    """
    rollouts = rollouts.over(vocabulary)
    if rollouts.policy is not None:
        rollouts.policy.check_tokens(rollouts.tokens, rollouts.mask)
    if check:
        check_rollouts(student, rollouts)
    return chosen_log_probs(token_logits(student, rollouts), rollouts)
