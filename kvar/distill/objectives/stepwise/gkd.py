"""Generalised knowledge distillation (Agarwal et al. 2024, arXiv 2306.13649, algorithm 1).

    each step is on the student's responses with probability lambda (``gkd_lambda``), else on the data's
    loss = sum_{i,t} D_beta( p_T(. | s_it), pi(. | s_it) ), normalised

D_beta is :func:`kvar.distill.objectives.stepwise.divergences.generalised_jsd`. The choice depends on seed and step
alone.
"""

from __future__ import annotations

from functools import partial

from kvar.distill.objectives.base import Loss, Term, objective
from kvar.distill.objectives.batch import Settings, Source
from kvar.distill.objectives.passes import Passes
from kvar.distill.objectives.stepwise import divergences

__all__ = ["gkd"]


def _source(settings: Settings, on_policy: bool) -> Source:
    return "student" if on_policy else settings.responses or "data"


@objective("gkd", sources=lambda settings, on_policy: (_source(settings, on_policy),), teacher=True)
def gkd(passes: Passes, settings: Settings) -> Loss:
    """Generalised Jensen-Shannon divergence on the step's responses, the student's or the data's."""
    source = _source(settings, passes.batch.on_policy)
    divergence = partial(divergences.generalised_jsd, beta=settings.gkd_beta)
    return Loss((Term(passes.divergence(source, divergence), source),), {"on_policy": float(passes.batch.on_policy)})
