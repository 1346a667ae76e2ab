"""LLMR: REINFORCE with one-step returns from the teacher's logits (arXiv 2409.12500); KETCHUP's case K = 1.

The loss is :mod:`kvar.distill.objectives.on_policy.reinforce`'s, with the return of theory.md (2), whatever ``kernel``
says.
"""

from __future__ import annotations

from kvar.distill.objectives.base import Loss, objective
from kvar.distill.objectives.batch import Settings
from kvar.distill.objectives.on_policy.reinforce import reinforce
from kvar.distill.objectives.passes import Passes
from kvar.estimators import Estimator
from kvar.returns import LLMR

__all__ = ["llmr"]


@objective(
    "llmr",
    sources=lambda settings, on_policy: ("student",),
    teacher=True,
    estimator=lambda settings: Estimator(LLMR(), settings.baseline),
)
def llmr(passes: Passes, settings: Settings) -> Loss:
    """REINFORCE with the all-ones kernel on the student's responses."""
    return reinforce(passes, settings, "llmr")
