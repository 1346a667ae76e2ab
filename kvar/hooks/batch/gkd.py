"""Batches of GKD and IW-OPD: input ids with labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from kvar.hooks.batch.logits import LogitsBatch
from kvar.hooks.batch.part import Caught

__all__ = ["GKDBatch", "IWOPDBatch"]


class GKDBatch(LogitsBatch):
    """TRL's ``GKDTrainer``: responses of the student, the teacher or the data, by its ``lmbda`` and ``seq_kd``."""

    trainers = ("GKDTrainer",)
    read = ("input_ids", "attention_mask", "labels")

    def temperature(self, trainer: Any) -> float:
        """1: GKD's temperature is that of its sampling alone."""
        return 1.0


class IWOPDBatch(GKDBatch):
    """TRL's ``IWOPDTrainer`` with a local teacher: its weighted log-ratio of sampled tokens, or a divergence."""

    trainers = ("IWOPDTrainer",)

    def temperature(self, trainer: Any) -> float:
        """See :class:`BatchKind`."""
        return float(trainer.temperature)

    def has_behaviour(self, trainer: Any) -> bool:
        """Whether vLLM draws the responses, which tells their probabilities."""
        return bool(getattr(trainer, "use_vllm", False))

    def behaviour(self, inputs: Mapping[str, Any], caught: Caught) -> Tensor | None:
        """The sampler's log-probabilities."""
        given = inputs.get("rollout_logprobs")
        return None if given is None else caught.of_tokens(given)
