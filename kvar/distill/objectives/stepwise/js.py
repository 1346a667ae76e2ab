"""Stepwise Jensen-Shannon distillation (f-distill, Wen et al. 2023, arXiv 2307.15190).

    loss = 1/2 mean over teacher's responses of KL( p_T || m ) + 1/2 mean over student's responses of KL( pi || m )
    m = (p_T + pi) / 2 in each state

Each half is taken in the states that its first argument visits (the sequence-level divergence, step by step) and
normalised by its own responses. The teacher's responses are sampled, as in the sequence-level divergence, with
``seqkd_beams: 0``, else decoded by beam search; ``responses: data`` uses the data's instead. Responses are constants.
"""

from __future__ import annotations

from torch import Tensor

from kvar.distill.objectives.base import Loss, Term, objective
from kvar.distill.objectives.batch import Settings
from kvar.distill.objectives.passes import Passes
from kvar.distill.objectives.stepwise import divergences

__all__ = ["js"]


def _teachers_half(log_p: Tensor, log_q: Tensor) -> Tensor:
    return divergences.mixture_kl(log_p, log_p, log_q) / 2


def _students_half(log_p: Tensor, log_q: Tensor) -> Tensor:
    return divergences.mixture_kl(log_q, log_p, log_q) / 2


@objective("js", sources=lambda settings, on_policy: (settings.responses or "teacher", "student"), teacher=True)
def js(passes: Passes, settings: Settings) -> Loss:
    """Half KL(p || m) on the teacher's responses, half KL(q || m) on the student's."""
    off = settings.responses or "teacher"
    return Loss(
        (
            Term(passes.divergence("student", _students_half), "student"),
            Term(passes.divergence(off, _teachers_half), off),
        )
    )
