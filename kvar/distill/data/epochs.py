"""Tell the sampler which epoch it is: under several processes, neither transformers nor accelerate does."""

from __future__ import annotations

import math
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

__all__ = ["Epochs"]


class Epochs(TrainerCallback):
    """Sets the epoch of ``sampler`` before its order is asked for, after a resume as well."""

    def __init__(self) -> None:
        self.sampler: Any = None

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The epoch is the whole part of what is done."""
        if self.sampler is not None:
            self.sampler.set_epoch(math.floor((state.epoch or 0.0) + 1e-6))
