"""Word-level forward KL (Hinton et al. 2015; Kim and Rush 2016, arXiv 1606.07947).

loss = sum_{i,t} KL( p_T(. | s_it) || pi(. | s_it) ), normalised,    on the data's responses unless settings say others
"""

from __future__ import annotations

from kvar.distill.objectives.base import Loss, Term, objective
from kvar.distill.objectives.batch import Settings
from kvar.distill.objectives.passes import Passes
from kvar.distill.objectives.stepwise import divergences

__all__ = ["kl"]


@objective("kl", sources=lambda settings, on_policy: (settings.responses or "data",), teacher=True)
def kl(passes: Passes, settings: Settings) -> Loss:
    """KL from the teacher's distribution to the student's."""
    source = settings.responses or "data"
    return Loss((Term(passes.divergence(source, divergences.kl), source),))
