"""Objectives by name: sft, kl, llmr, ketchup. Importing this package registers them."""

from kvar.distill.objectives.base import OBJECTIVES, Batch, Loss, Objective, objective
from kvar.distill.objectives.ketchup import ketchup, llmr
from kvar.distill.objectives.kl import kl
from kvar.distill.objectives.sft import sft

__all__ = ["OBJECTIVES", "Batch", "Loss", "Objective", "ketchup", "kl", "llmr", "objective", "sft"]
