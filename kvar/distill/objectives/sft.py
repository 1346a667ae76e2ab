"""Supervised fine-tuning: the negative log-likelihood of the data's responses.

loss = - sum_{i,t} log pi(y_it | x_i, y_i,<t) / number of tokens
"""

from __future__ import annotations

from torch import nn

from kvar.distill.objectives.base import Batch, Loss, Settings, objective, token_mean
from kvar.rollouts import log_probs

__all__ = ["sft"]


@objective("sft", samples=False, teacher=False)
def sft(student: nn.Module, teacher: nn.Module | None, batch: Batch, settings: Settings) -> Loss:
    """Token-mean negative log-likelihood of ``batch.references``; label smoothing as in the training arguments.

    With ``label_smoothing_factor`` eps the target is (1 - eps) onehot + eps uniform (Szegedy et al. 2016).
    """
    smoothing = settings.label_smoothing_factor
    if not smoothing:
        picked = log_probs(student, batch.references, vocabulary=batch.vocabulary)
        return Loss(token_mean(-picked, batch.references.mask))
    from kvar.rollouts import token_logits

    log_p = token_logits(student, batch.references)[..., : batch.vocabulary].float().log_softmax(dim=-1)
    picked = log_p.gather(-1, batch.references.tokens[..., None])[..., 0]
    loss = token_mean(-(1 - smoothing) * picked - smoothing * log_p.mean(dim=-1), batch.references.mask)
    return Loss(loss, {"nll": float(token_mean(-picked.detach(), batch.references.mask))})
