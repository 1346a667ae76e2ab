"""Word-level forward KL on the data's responses (Hinton et al. 2015; Kim and Rush 2016, arXiv 1606.07947).

loss = sum_{i,t} KL( p_T(. | s_it) || pi(. | s_it) ) / number of tokens
"""

from __future__ import annotations

import torch
from torch import nn

from kvar.distill.objectives.base import Batch, Loss, Settings, objective, token_mean
from kvar.rollouts import token_logits

__all__ = ["kl"]


@objective("kl", samples=False, teacher=True)
def kl(student: nn.Module, teacher: nn.Module | None, batch: Batch, settings: Settings) -> Loss:
    """Token-mean KL from the teacher's distribution to the student's, on ``batch.references``."""
    assert teacher is not None
    with torch.no_grad():
        log_t = token_logits(teacher, batch.references)[..., : batch.vocabulary].float().log_softmax(dim=-1)
    log_s = token_logits(student, batch.references)[..., : batch.vocabulary].float().log_softmax(dim=-1)
    divergence = (log_t.exp() * (log_t - log_s)).sum(dim=-1)
    return Loss(token_mean(divergence, batch.references.mask))
