"""Set the sampler's epoch, which neither transformers nor accelerate does on several processes."""

from __future__ import annotations

import math
from typing import Any

from transformers import TrainerCallback

__all__ = ["Epochs"]


class Epochs(TrainerCallback):
    """Sets the epoch of ``sampler`` before an epoch's order is drawn, after a resume too."""

    def __init__(self) -> None:
        self.sampler: Any = None

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Set the epoch: the whole part of the epochs trained so far."""
        if self.sampler is not None:
            self.sampler.set_epoch(math.floor((state.epoch or 0.0) + 1e-6))
