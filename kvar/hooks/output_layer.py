"""``OutputLayerProbe``: the output layer's moments of every kernel at every step, from the step's own forward pass."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from kvar.gradients.moments import GroupMoments
from kvar.gradients.output_layer import output_layer_moments
from kvar.gradients.watch import HeadWatch
from kvar.hooks.estimators import Estimator, estimator_weights
from kvar.records import RunWriter
from kvar.returns import Kernel, TokenValues
from kvar.rollouts import Rollouts

__all__ = ["OutputLayerProbe", "StepStatistics"]

_FLUSH = 50
"""Measurements between two writes to the records."""


@dataclass(frozen=True)
class StepStatistics:
    """The output layer's gradient at one step, one micro-batch of N trajectories; squared-gradient units.

    Attributes:
        step: optimiser steps taken before: the policy that sampled the trajectories is the one after that many.
        trace: (E,) unbiased tr Cov(g^e).
        inner: (E, E) unbiased <E g^e, E g^f>; its diagonal is the signal. Both from pairs of distinct prompts.
        n: trajectories.
        seconds: what the measurement cost.
    """

    step: int
    trace: Tensor
    inner: Tensor
    n: int
    seconds: float


class OutputLayerProbe(TrainerCallback):
    """Measures every kernel at the output layer at every step; nothing is sampled, run or differentiated for it.

    The training step samples responses, has the teacher value them and runs the student forward; the head's moments
    follow from these (theory.md (14)). The trainer hands over rollouts and values once a micro-batch has run forward::

        callback.on_rollouts(rollouts, values)

    ``DistillationTrainer`` does so for every callback that has the method; in a trainer of your own call it in
    ``compute_loss``, after ``kvar.rollouts.log_probs(model, rollouts)``. The figures are those of the head's own use of
    its weight; docs/output-layer.md shows how well they follow the gradient of all parameters. A single step is noisy:
    average over steps (``kvar.analysis.output_layer_statistics``). Dropout, where the training uses it, is in them.

    Args:
        estimators: kernels, or :class:`Estimator` with baselines, names distinct.
        every: optimiser steps between measurements.
        writer: where to append rows of ``metrics`` (split ``name``): "trace K=4", "signal K=4" and "inner K=4", the
            last with the first estimator. None keeps :class:`StepStatistics` in ``.measurements`` only.
        name: the split's name in the records.
        vocabulary: the tokenizer's size, where the loss is normalised over no more than it.
        head: the output layer, where the model does not name it.

    Raises:
        ValueError: no estimators, names that repeat, ``every`` below 1.
    """

    def __init__(
        self,
        estimators: Sequence[Kernel | Estimator],
        *,
        every: int = 1,
        writer: RunWriter | None = None,
        name: str = "output-layer",
        vocabulary: int | None = None,
        head: nn.Module | None = None,
    ) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1 training step; got {every}.")
        self.estimators = [e if isinstance(e, Estimator) else Estimator(e) for e in estimators]
        self.names = [e.name for e in self.estimators]
        if not self.names or len(set(self.names)) < len(self.names):
            raise ValueError(f"estimators must be one or more, with distinct names; got {self.names}.")
        self.every, self.writer, self.name, self.vocabulary, self.head = every, writer, name, vocabulary, head
        self.measurements: list[StepStatistics] = []
        self._pending: list[StepStatistics] = []
        self._watch: HeadWatch | None = None
        self._step = 0

    def on_rollouts(
        self,
        rollouts: Rollouts,
        values: TokenValues,
        *,
        hidden: Tensor | None = None,
        logits: Tensor | None = None,
    ) -> None:
        """Measure one micro-batch, right after its forward pass.

        Args:
            rollouts: N trajectories sampled from the student as it is.
            values: (N, T) the teacher's.
            hidden: (N, T, p) the head's inputs, where the forward pass was not kvar's.
            logits: (N, T, V), with ``hidden``.

        Raises:
            ValueError: the last training forward pass was not over these rollouts.
        """
        if self._step % self.every:
            return
        start = time.perf_counter()
        mask, index = rollouts.mask, rollouts.prompt_index
        with torch.no_grad():
            weights = estimator_weights(self.estimators, values, mask, index)
            if hidden is not None and logits is not None:
                logits = logits[..., : self.vocabulary]
                moments = output_layer_moments(hidden, logits, rollouts.tokens, mask, weights, index)
            elif self._watch is not None:
                moments = self._watch.moments(rollouts, weights, vocabulary=self.vocabulary)
            else:
                raise ValueError("OutputLayerProbe is not in a training yet: give it to a trainer as a callback.")
            trace, inner = _unbiased(moments, index)
        found = StepStatistics(self._step, trace, inner, len(rollouts), time.perf_counter() - start)
        if self.writer is None:
            self.measurements.append(found)
        else:
            self._pending.append(found)
            if len(self._pending) >= _FLUSH:
                self.flush()

    def flush(self) -> None:
        """Write what was measured since the last write; steps of a resumed run replace their earlier rows."""
        if self.writer is None or not self._pending:
            return
        import pandas as pd

        rows = []
        for step in sorted({m.step for m in self._pending}):
            parts = [m for m in self._pending if m.step == step]
            seconds = sum(m.seconds for m in parts)
            total = sum(m.n for m in parts)
            trace = sum((m.n * m.trace for m in parts), torch.zeros(())) / total
            inner = sum((m.n * m.inner for m in parts), torch.zeros(())) / total
            numbers = {"n": float(total), "seconds": seconds}
            for e, name in enumerate(self.names):
                numbers[f"trace {name}"] = float(trace[e])
                numbers[f"signal {name}"] = float(inner[e, e])
                numbers[f"inner {name}"] = float(inner[e, 0])
            rows += [{"step": step, "split": self.name, "name": k, "value": v} for k, v in numbers.items()]
        self.writer.append("metrics", pd.DataFrame(rows), key=(self.name, self._pending[0].step))
        self._pending.clear()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start to watch the student's head."""
        self._step = state.global_step
        if state.is_world_process_zero:
            self._close()
            self._watch = HeadWatch(kwargs["model"], self.head, training_only=True)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Count the step."""
        self._step = state.global_step

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write, so that records are never behind a checkpoint."""
        self.flush()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write, and leave the student's head alone."""
        self.flush()
        self._close()

    def _close(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None


def _unbiased(moments: GroupMoments, prompt_index: Tensor) -> tuple[Tensor, Tensor]:
    """(E,) trace and (E, E) inner products of means, theory.md (12) over pairs of distinct prompts; NaN for one."""
    pair, prompt_pair = moments.pair, moments.prompt_pair
    assert pair is not None  # the output-layer pass gives every field
    assert prompt_pair is not None
    n = pair.shape[-1]
    sizes = prompt_index.unique(return_counts=True)[1].double().cpu()
    same = (sizes**2 * prompt_pair).sum(dim=-1)
    inner = (n**2 * moments.mean_pair - same) / (n**2 - float((sizes**2).sum()))
    return moments.sq_norm.mean(dim=-1) - inner.diagonal(), inner
