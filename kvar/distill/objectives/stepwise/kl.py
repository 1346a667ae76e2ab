"""Word-level KL, forward and reverse, one divergence per state.

forward: loss = sum_{i,t} KL( p_T(. | s_it) || pi(. | s_it) ), normalised,    on the data's responses by default
         (Hinton et al. 2015; Kim and Rush 2016, arXiv 1606.07947)
reverse: loss = sum_{i,t} KL( pi(. | s_it) || p_T(. | s_it) ), normalised,    on the student's responses by default
         (f-distill, Wen et al. 2023, arXiv 2307.15190; on-policy as in arXiv 2306.13649)

The responses are constants: the gradient is that of the divergence in each state, not of the distribution of states.
"""

from __future__ import annotations

from kvar.distill.objectives.base import Loss, Term, objective
from kvar.distill.objectives.batch import Settings
from kvar.distill.objectives.passes import Passes
from kvar.distill.objectives.stepwise import divergences

__all__ = ["kl", "reverse_kl"]


@objective("kl", sources=lambda settings, on_policy: (settings.responses or "data",), teacher=True)
def kl(passes: Passes, settings: Settings) -> Loss:
    """KL from the teacher's distribution to the student's."""
    source = settings.responses or "data"
    return Loss((Term(passes.divergence(source, divergences.kl), source),))


@objective("reverse-kl", sources=lambda settings, on_policy: (settings.responses or "student",), teacher=True)
def reverse_kl(passes: Passes, settings: Settings) -> Loss:
    """KL from the student's distribution to the teacher's."""
    source = settings.responses or "student"
    return Loss((Term(passes.divergence(source, divergences.reverse_kl), source),))
