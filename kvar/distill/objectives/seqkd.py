"""Sequence-level knowledge distillation: fine-tuning on the teacher's responses (Kim and Rush 2016, arXiv 1606.07947).

loss = - sum_{i,t} log pi(y_it | x_i, y_i,<t), normalised,    y_i ~ the teacher's beam search, or a sample of it

The responses are decoded at a prompt's first use and cached (:mod:`kvar.distill.step.teacher_responses`).
"""

from __future__ import annotations

from kvar.distill.objectives.base import Loss, objective
from kvar.distill.objectives.batch import Settings
from kvar.distill.objectives.passes import Passes
from kvar.distill.objectives.sft import negative_log_likelihood

__all__ = ["seqkd"]


@objective("seqkd", sources=lambda settings, on_policy: ("teacher",), teacher=True)
def seqkd(passes: Passes, settings: Settings) -> Loss:
    """Negative log-likelihood of the teacher's responses."""
    return negative_log_likelihood(passes, settings, "teacher")
