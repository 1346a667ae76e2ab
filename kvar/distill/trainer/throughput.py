"""Response tokens trained on per second."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

__all__ = ["Throughput"]


class Throughput(TrainerCallback):
    """Counts response tokens and the seconds of optimiser steps.

    Sampling, teacher, forward, backward and optimiser count; evaluation, probes, checkpoints and logging do not.
    """

    def __init__(self) -> None:
        self.tokens, self.seconds = 0, 0.0
        self._start: float | None = None

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Reset the counts."""
        self.tokens, self.seconds, self._start = 0, 0.0, None

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Stop the clock."""
        if self._start is not None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.seconds += time.perf_counter() - self._start
            self._start = None

    def count(self, mask: Tensor) -> None:
        """Add a micro-batch's (N, T) mask of response tokens."""
        self.tokens += int(mask.sum())

    def take(self, device: torch.device, processes: int) -> float | None:
        """Tokens per second of all processes since the last call; None before any step. Every process must call it."""
        tokens, seconds, self.tokens, self.seconds = self.tokens, self.seconds, 0, 0.0
        if processes > 1:
            both = torch.tensor([float(tokens), seconds], device=device, dtype=torch.float32)
            torch.distributed.all_reduce(both)
            tokens, seconds = int(both[0]), float(both[1]) / processes
        return tokens / seconds if seconds > 0 else None
