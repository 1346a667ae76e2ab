"""Scoring rollouts: the teacher's values, the student's log-probabilities."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from kvar.returns import TokenValues, token_values
from kvar.rollouts.forward import token_logits
from kvar.rollouts.types import Rollouts

__all__ = ["check_same_tokenizer", "log_probs", "score"]


@torch.no_grad()
def score(
    teacher: nn.Module,
    rollouts: Rollouts,
    *,
    centre: Literal["mean", "logsumexp", "none"] = "mean",
    value: Literal["max", "soft"] = "max",
    vocabulary: int | None = None,
    micro_batch: int | None = None,
) -> TokenValues:
    """Teacher values (q_t, V_t) of every response token from one forward pass without gradient; theory.md (1).

    Args:
        teacher: seq2seq or causal model with the student's tokenizer.
        rollouts: N responses of T tokens at most.
        centre: see ``kvar.returns.token_values``.
        value: see ``kvar.returns.token_values``.
        vocabulary: real vocabulary size (the tokenizer's); logits past it are padding of the embedding matrix and are
            cut off before means and maxima, so that models padded to different sizes agree.
        micro_batch: rows a forward pass takes at a time; None for all. The full (N, T, V) logits are never kept.

    Returns:
        TokenValues of shape (N, T), zero where masked, on the rollouts' device.

    Raises:
        ValueError: a response token outside the teacher's vocabulary, non-finite logits.
    """
    size = micro_batch or max(len(rollouts), 1)
    was_training = [(module, module.training) for module in teacher.modules()]
    teacher.eval()
    device = next(teacher.parameters()).device
    parts = []
    try:
        for start in range(0, max(len(rollouts), 1), size):
            rows = rollouts[start : start + size].to(device)
            logits = token_logits(teacher, rows)[..., :vocabulary]
            parts.append(token_values(logits, rows.tokens, rows.mask, centre=centre, value=value))
    finally:
        for module, training in was_training:
            module.training = training
    where = rollouts.tokens.device
    return TokenValues(torch.cat([p.q for p in parts]).to(where), torch.cat([p.v for p in parts]).to(where))


def log_probs(student: nn.Module, rollouts: Rollouts, *, vocabulary: int | None = None) -> Tensor:
    """Log pi(y_t | s_t) of every response token under ``student``, with gradient.

    Args:
        student: seq2seq or causal model; its training mode is used as it stands.
        rollouts: N responses of T tokens at most.
        vocabulary: normalise over the first this many tokens only, as ``sample`` does with the same argument.

    Returns:
        (N, T), zero where masked. No temperature and no top-k: these belong to the behaviour policy.
    """
    logits = token_logits(student, rollouts)[..., :vocabulary]
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    picked = logits.gather(-1, rollouts.tokens[..., None])[..., 0] - logits.logsumexp(dim=-1)
    return picked.masked_fill(~rollouts.mask, 0.0)


def check_same_tokenizer(student_tokenizer: Any, teacher_tokenizer: Any) -> None:
    """Refuse two tokenizers that do not give every token the same id.

    Raises:
        ValueError: the vocabularies differ; the message names a token on which they disagree.
    """
    ours, theirs = student_tokenizer.get_vocab(), teacher_tokenizer.get_vocab()
    if ours == theirs:
        return
    odd = next(token for token in sorted({*ours, *theirs}) if ours.get(token) != theirs.get(token))
    raise ValueError(
        f"student and teacher have different tokenizers ({len(ours)} and {len(theirs)} tokens; {odd!r} has id "
        f"{ours.get(odd)} in one, {theirs.get(odd)} in the other). kvar needs one tokenizer for both: token-level "
        "rewards compare the same ids. Use a teacher and student of one family."
    )
