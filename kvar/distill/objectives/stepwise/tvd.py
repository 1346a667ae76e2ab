"""Stepwise total-variation distillation (f-distill, Wen et al. 2023, arXiv 2307.15190).

    loss = 1/2 mean over teacher's responses of TV(p_T, pi) + 1/2 mean over student's responses of TV(p_T, pi)
    TV(p, q) = sum |p - q| / 2 in each state

Each half is normalised by its own responses; "teacher's responses" as in :mod:`kvar.distill.objectives.stepwise.js`.
"""

from __future__ import annotations

from torch import Tensor

from kvar.distill.objectives.base import Loss, Term, objective
from kvar.distill.objectives.batch import Settings
from kvar.distill.objectives.passes import Passes
from kvar.distill.objectives.stepwise import divergences

__all__ = ["tvd"]


def _half(log_p: Tensor, log_q: Tensor) -> Tensor:
    return divergences.total_variation(log_p, log_q) / 2


@objective("tvd", sources=lambda settings, on_policy: (settings.responses or "teacher", "student"), teacher=True)
def tvd(passes: Passes, settings: Settings) -> Loss:
    """Half the total variation distance on the teacher's responses, half on the student's."""
    off = settings.responses or "teacher"
    return Loss((Term(passes.divergence("student", _half), "student"), Term(passes.divergence(off, _half), off)))
