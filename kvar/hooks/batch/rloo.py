"""Batches of RLOO: GRPO's, with old log-probabilities of whole responses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from kvar.hooks.batch.grpo import GRPOBatch
from kvar.hooks.batch.part import Caught

__all__ = ["RLOOBatch"]


class RLOOBatch(GRPOBatch):
    """TRL's ``RLOOTrainer``."""

    trainers = ("RLOOTrainer",)
    more = ("old_logps",)

    def has_behaviour(self, trainer: Any) -> bool:
        """False: the batch tells probabilities of whole responses alone."""
        return False

    def behaviour(self, inputs: Mapping[str, Any], caught: Caught) -> Tensor | None:
        """(B, T) log-probabilities whose sums are the old ones, by the same amount a token from the student's."""
        log_probs, mask = caught.values["log_probs"], caught.rollouts().mask
        apart = (inputs["old_logps"] - log_probs.sum(dim=1)) / mask.sum(dim=1).clamp(min=1)
        return (log_probs + apart[:, None]).masked_fill(~mask, 0.0)
