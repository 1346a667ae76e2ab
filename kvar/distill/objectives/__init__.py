"""Objectives by name, one a file, and weighted sums of them. Importing this package registers them.

sft, seqkd, kl, reverse-kl, js, tvd, gkd, llmr, ketchup, policy-gradient
"""

from kvar.distill.objectives.base import OBJECTIVES, Loss, Objective, Term, objective
from kvar.distill.objectives.batch import Batch, Source
from kvar.distill.objectives.mixture import Mixture, parse_objective
from kvar.distill.objectives.normalise import NORMALISATIONS, Counts, count, normalise
from kvar.distill.objectives.on_policy.ketchup import ketchup
from kvar.distill.objectives.on_policy.llmr import llmr
from kvar.distill.objectives.on_policy.policy_gradient import policy_gradient
from kvar.distill.objectives.passes import Passes
from kvar.distill.objectives.seqkd import seqkd
from kvar.distill.objectives.sft import sft
from kvar.distill.objectives.stepwise.gkd import gkd
from kvar.distill.objectives.stepwise.js import js
from kvar.distill.objectives.stepwise.kl import kl, reverse_kl
from kvar.distill.objectives.stepwise.tvd import tvd

__all__ = [
    "NORMALISATIONS",
    "OBJECTIVES",
    "Batch",
    "Counts",
    "Loss",
    "Mixture",
    "Objective",
    "Passes",
    "Source",
    "Term",
    "count",
    "gkd",
    "js",
    "ketchup",
    "kl",
    "llmr",
    "normalise",
    "objective",
    "parse_objective",
    "policy_gradient",
    "reverse_kl",
    "seqkd",
    "sft",
    "tvd",
]
