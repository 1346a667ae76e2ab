"""KETCHUP: REINFORCE with K-step returns from the teacher's logits (Fan et al. 2026, arXiv 2504.19024).

The loss is :mod:`kvar.distill.objectives.on_policy.reinforce`'s, with the return of ``settings.kernel`` (theory.md (3)
and (4)): K=4 and its like are the paper's; immediate, geometric and listed lags are kvar's.
"""

from __future__ import annotations

from kvar.distill.objectives.base import Loss, objective
from kvar.distill.objectives.batch import Settings
from kvar.distill.objectives.on_policy.reinforce import reinforce
from kvar.distill.objectives.passes import Passes
from kvar.estimators import Estimator
from kvar.returns import parse_kernel

__all__ = ["ketchup"]


@objective(
    "ketchup",
    sources=lambda settings, on_policy: ("student",),
    teacher=True,
    estimator=lambda settings: Estimator(parse_kernel(settings.kernel), settings.baseline),
)
def ketchup(passes: Passes, settings: Settings) -> Loss:
    """REINFORCE with the kernel ``settings.kernel`` on the student's responses."""
    return reinforce(passes, settings, "ketchup")
